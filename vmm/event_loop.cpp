#include "vmm/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <array>
#include <cassert>
#include <future>
#include <map>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/task_queue.hpp"

namespace coppice {
namespace {

// What epoll returns for our own two fds; watches count up from first_watch.
constexpr std::uint64_t wake_token = 0;
constexpr std::uint64_t timer_token = 1;
constexpr std::uint64_t first_watch = 2;

// Tasks post tasks: so often these come before a look at fds and timers.
constexpr int rounds_a_look = 8;

timespec to_timespec(event_loop::clock::time_point when) {
  // libstdc++'s steady_clock is CLOCK_MONOTONIC. A zero timespec would disarm the timer: hence at least 1 ns.
  const auto nanoseconds =
      std::max<std::int64_t>(1, std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count());
  return {static_cast<time_t>(nanoseconds / 1'000'000'000), static_cast<long>(nanoseconds % 1'000'000'000)};
}

}  // namespace

class event_loop::state {
 public:
  explicit state(unique_fd wakeup) : tasks_(std::move(wakeup)) {}
  result<void> open();
  void run();
  void stop();
  void post(task work);
  result<void> watch(int fd, std::uint32_t events, fd_callback callback);
  void unwatch(int fd) noexcept;
  timer_id add_timer(clock::time_point when, task work);
  void cancel_timer(timer_id timer) noexcept;

  std::thread thread;
  std::thread::id thread_id;  // written before create() returns

 private:
  struct watched {
    std::uint64_t token = 0;
    std::shared_ptr<fd_callback> callback;  // shared: it may remove itself while it runs
  };

  result<void> add_own(int fd, std::uint64_t token);
  void run_due_timers();
  void dispatch(std::uint64_t token, std::uint32_t events);
  void arm_timer();

  unique_fd epoll_;
  unique_fd timer_;
  task_queue tasks_;

  // The loop's thread only.
  bool stopping_ = false;
  std::uint64_t next_token_ = first_watch;
  std::unordered_map<int, watched> watches_;
  std::unordered_map<std::uint64_t, int> fd_of_token_;
  timer_id next_timer_ = 1;
  std::map<std::pair<clock::time_point, timer_id>, task> timers_;
  std::unordered_map<timer_id, clock::time_point> due_;
};

result<void> event_loop::state::add_own(int fd, std::uint64_t token) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = token;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return errno_error("event loop: epoll_ctl");
  return {};
}

result<void> event_loop::state::open() {
  epoll_ = unique_fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return errno_error("event loop: epoll_create1");
  timer_ = unique_fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer_) return errno_error("event loop: timerfd_create");
  COPPICE_TRY(add_own(tasks_.fd(), wake_token));
  return add_own(timer_.get(), timer_token);
}

void event_loop::state::post(task work) {
  if (std::this_thread::get_id() == thread_id) return tasks_.post_to_self(std::move(work));
  tasks_.post(std::move(work));
}

void event_loop::state::stop() {
  post([this] { stopping_ = true; });
}

void event_loop::state::run_due_timers() {
  const auto now = clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto node = timers_.extract(timers_.begin());
    due_.erase(node.key().second);
    node.mapped()();
  }
  arm_timer();
}

void event_loop::state::dispatch(std::uint64_t token, std::uint32_t events) {
  const auto fd = fd_of_token_.find(token);
  if (fd == fd_of_token_.end()) return;  // unwatched by an earlier callback of this round
  const auto callback = watches_.at(fd->second).callback;
  (*callback)(events);
}

void event_loop::state::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    const bool idle = tasks_.empty();
    if (stopping_ && idle) return;
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), idle ? -1 : 0);
    for (int i = 0; i < count; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == wake_token) {
        tasks_.clear_wakeups();
      } else if (event.data.u64 == timer_token) {
        std::uint64_t drained = 0;
        [[maybe_unused]] const auto read = ::read(timer_.get(), &drained, sizeof drained);
        run_due_timers();
      } else {
        dispatch(event.data.u64, event.events);
      }
    }
    for (int round = 0; round < rounds_a_look && tasks_.run_posted(); ++round) {
    }
  }
}

void event_loop::state::arm_timer() {
  itimerspec spec{};
  if (!timers_.empty()) spec.it_value = to_timespec(timers_.begin()->first.first);
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

event_loop::timer_id event_loop::state::add_timer(clock::time_point when, task work) {
  const auto timer = next_timer_++;
  const auto place = timers_.emplace(std::pair(when, timer), std::move(work)).first;
  due_.emplace(timer, when);
  if (place == timers_.begin()) arm_timer();
  return timer;
}

void event_loop::state::cancel_timer(timer_id timer) noexcept {
  const auto due = due_.find(timer);
  if (due == due_.end()) return;
  timers_.erase({due->second, timer});  // the timerfd stays armed: a wake-up for nothing is cheaper than a system call
  due_.erase(due);
}

result<void> event_loop::state::watch(int fd, std::uint32_t events, fd_callback callback) {
  unwatch(fd);
  epoll_event event{};
  event.events = events;
  event.data.u64 = next_token_++;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return errno_error("event loop: epoll_ctl");
  watches_[fd] = {event.data.u64, std::make_shared<fd_callback>(std::move(callback))};
  fd_of_token_[event.data.u64] = fd;
  return {};
}

void event_loop::state::unwatch(int fd) noexcept {
  const auto found = watches_.find(fd);
  if (found == watches_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  fd_of_token_.erase(found->second.token);
  watches_.erase(found);
}

result<std::shared_ptr<event_loop>> event_loop::create() {
  auto wakeup = task_queue::make_eventfd();
  if (!wakeup) return std::move(wakeup).error();
  auto shared = std::make_shared<state>(std::move(*wakeup));
  COPPICE_TRY(shared->open());
  std::promise<void> started;
  shared->thread = std::thread([shared, &started] {
    shared->thread_id = std::this_thread::get_id();
    started.set_value();
    shared->run();
  });
  started.get_future().wait();
  return std::shared_ptr<event_loop>(new event_loop(std::move(shared)));
}

event_loop::~event_loop() {
  state_->stop();
  if (on_loop_thread()) {
    state_->thread.detach();  // it ends when the callback that dropped us returns; it holds the state until then
  } else {
    state_->thread.join();
  }
}

void event_loop::post(task work) {
  state_->post(std::move(work));
}

void event_loop::run_sync(const task& work) {
  if (on_loop_thread()) return work();
  std::promise<void> ran;
  state_->post([&] {
    work();
    ran.set_value();
  });
  ran.get_future().wait();
}

bool event_loop::on_loop_thread() const noexcept {
  return std::this_thread::get_id() == state_->thread_id;
}

result<void> event_loop::watch(int fd, std::uint32_t events, fd_callback callback) {
  assert(on_loop_thread());
  return state_->watch(fd, events, std::move(callback));
}

void event_loop::unwatch(int fd) noexcept {
  assert(on_loop_thread());
  state_->unwatch(fd);
}

event_loop::timer_id event_loop::add_timer(clock::time_point when, task work) {
  assert(on_loop_thread());
  return state_->add_timer(when, std::move(work));
}

void event_loop::cancel_timer(timer_id timer) noexcept {
  assert(on_loop_thread());
  state_->cancel_timer(timer);
}

}  // namespace coppice
