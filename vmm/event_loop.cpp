#include "vmm/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <array>
#include <atomic>
#include <cassert>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.hpp"

namespace coppice {
namespace {

// What epoll returns for our own two fds; watches count up from first_watch.
constexpr std::uint64_t wake_token = 0;
constexpr std::uint64_t timer_token = 1;
constexpr std::uint64_t first_watch = 2;

timespec to_timespec(event_loop::clock::time_point when) {
  // libstdc++'s steady_clock is CLOCK_MONOTONIC. A zero timespec would disarm the timer: hence at least 1 ns.
  const auto nanoseconds =
      std::max<std::int64_t>(1, std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count());
  return {static_cast<time_t>(nanoseconds / 1'000'000'000), static_cast<long>(nanoseconds % 1'000'000'000)};
}

}  // namespace

class event_loop::state {
 public:
  result<void> open();
  void run();
  void stop();
  void post(task work);
  void dispatch(task work);
  bool running_in_this_thread() const noexcept { return runner_ == std::this_thread::get_id(); }
  result<void> watch(int fd, std::uint32_t events, fd_callback callback);
  void unwatch(int fd) noexcept;
  timer_id add_timer(clock::time_point when, task work);
  void cancel_timer(timer_id timer) noexcept;

  std::thread thread;

 private:
  // While it lives, this thread runs the callbacks and tasks.
  class turn {
   public:
    turn(state& of, std::unique_lock<std::mutex> lock) : of_(of), lock_(std::move(lock)) {
      of_.runner_ = std::this_thread::get_id();
    }
    ~turn() { of_.runner_ = std::thread::id(); }
    turn(const turn&) = delete;
    turn& operator=(const turn&) = delete;

   private:
    state& of_;
    std::unique_lock<std::mutex> lock_;
  };

  struct watched {
    std::uint64_t token = 0;
    std::shared_ptr<fd_callback> callback;  // shared: it may remove itself while it runs
  };

  result<void> add_own(int fd, std::uint64_t token);
  bool anything_posted();
  void run_posted();
  void run_due_timers();
  void serve(const epoll_event& event);
  void call_back(std::uint64_t token, std::uint32_t events);
  void arm_timer();
  void wake() noexcept;

  unique_fd epoll_;
  unique_fd wake_;
  unique_fd timer_;

  std::mutex mutex_;  // guards the next two
  std::vector<task> posted_;
  bool stopping_ = false;

  std::mutex turn_mutex_;  // held by a `turn`: it guards all below
  std::atomic<std::thread::id> runner_;
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
  wake_ = unique_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return errno_error("event loop: eventfd");
  timer_ = unique_fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer_) return errno_error("event loop: timerfd_create");
  COPPICE_TRY(add_own(wake_.get(), wake_token));
  return add_own(timer_.get(), timer_token);
}

void event_loop::state::wake() noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);  // fails only if already signalled
}

void event_loop::state::post(task work) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(work));
  }
  if (first) wake();
}

bool event_loop::state::anything_posted() {
  const std::lock_guard lock(mutex_);
  return !posted_.empty();
}

void event_loop::state::dispatch(task work) {
  if (!running_in_this_thread()) {  // or the lock would be taken twice
    std::unique_lock lock(turn_mutex_, std::try_to_lock);
    if (lock && !anything_posted()) {
      const turn mine(*this, std::move(lock));
      work();
      work = nullptr;  // releases what it captured while it is still our turn
      return;
    }
  }
  post(std::move(work));
}

void event_loop::state::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
}

void event_loop::state::run_posted() {
  std::vector<task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (auto& work : tasks) {
    work();
    work = nullptr;  // releases what it captured before the next one runs
  }
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

void event_loop::state::call_back(std::uint64_t token, std::uint32_t events) {
  const auto fd = fd_of_token_.find(token);
  if (fd == fd_of_token_.end()) return;  // unwatched by an earlier callback of this round
  const auto callback = watches_.at(fd->second).callback;
  (*callback)(events);
}

void event_loop::state::serve(const epoll_event& event) {
  std::uint64_t drained = 0;
  if (event.data.u64 == wake_token) {
    [[maybe_unused]] const auto read = ::read(wake_.get(), &drained, sizeof drained);
    run_posted();
  } else if (event.data.u64 == timer_token) {
    [[maybe_unused]] const auto read = ::read(timer_.get(), &drained, sizeof drained);
    run_due_timers();
  } else {
    call_back(event.data.u64, event.events);
  }
}

void event_loop::state::run() {
  std::array<epoll_event, 64> events;
  for (;;) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    {
      const turn mine(*this, std::unique_lock(turn_mutex_));
      for (int i = 0; i < count; ++i) serve(events[static_cast<std::size_t>(i)]);
    }
    const std::lock_guard lock(mutex_);
    if (stopping_ && posted_.empty()) return;
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
  auto shared = std::make_shared<state>();
  COPPICE_TRY(shared->open());
  shared->thread = std::thread([shared] { shared->run(); });
  return std::shared_ptr<event_loop>(new event_loop(std::move(shared)));
}

event_loop::~event_loop() {
  state_->stop();
  if (running_in_this_thread()) {
    state_->thread.detach();  // it ends by itself, and whoever still runs a task holds the state
  } else {
    state_->thread.join();
  }
}

void event_loop::post(task work) {
  state_->post(std::move(work));
}

void event_loop::dispatch(task work) {
  const auto held = state_;  // `work` may drop the loop
  held->dispatch(std::move(work));
}

void event_loop::run_sync(const task& work) {
  if (running_in_this_thread()) return work();
  std::promise<void> ran;
  state_->post([&] {
    work();
    ran.set_value();
  });
  ran.get_future().wait();
}

bool event_loop::running_in_this_thread() const noexcept {
  return state_->running_in_this_thread();
}

result<void> event_loop::watch(int fd, std::uint32_t events, fd_callback callback) {
  assert(running_in_this_thread());
  return state_->watch(fd, events, std::move(callback));
}

void event_loop::unwatch(int fd) noexcept {
  assert(running_in_this_thread());
  state_->unwatch(fd);
}

event_loop::timer_id event_loop::add_timer(clock::time_point when, task work) {
  assert(running_in_this_thread());
  return state_->add_timer(when, std::move(work));
}

void event_loop::cancel_timer(timer_id timer) noexcept {
  assert(running_in_this_thread());
  state_->cancel_timer(timer);
}

}  // namespace coppice
