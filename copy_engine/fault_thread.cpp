#include "copy_engine/fault_thread.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "copy_engine/epoch_steps.hpp"

namespace coppice {
namespace {

// Faults are answered before anything else runs: each one is a vCPU that stands still.
void raise_priority() {
  sched_param parameters{};
  parameters.sched_priority = 1;
  if (::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters) == 0) return;
  if (::setpriority(PRIO_PROCESS, 0, -10) != 0) {
    spdlog::warn("copy engine: no right to raise the fault thread's priority (CAP_SYS_NICE): guests may stall longer");
  }
}

void raise_maximum(std::atomic<std::int64_t>& maximum, std::int64_t value) {
  if (value > maximum.load(std::memory_order_relaxed)) maximum.store(value, std::memory_order_relaxed);
}

}  // namespace

result<std::unique_ptr<fault_thread>> fault_thread::start(const copy_engine_options& options,
                                                          engine_counters& counters) {
  auto pool = bounce_pool::create(options.bounce_bytes);
  if (!pool) return std::move(pool).error();
  unique_fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return errno_error("epoll_create1");
  auto wakeup = task_queue::make_eventfd();
  if (!wakeup) return std::move(wakeup).error();
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wakeup->get();
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wakeup->get(), &event) != 0) return errno_error("epoll_ctl");
  return std::unique_ptr<fault_thread>(
      new fault_thread(options, std::move(*pool), std::move(epoll), std::move(*wakeup), counters));
}

fault_thread::fault_thread(const copy_engine_options& options, bounce_pool pool, unique_fd epoll, unique_fd wakeup,
                           engine_counters& counters)
    : pool_(std::move(pool)),
      epoll_(std::move(epoll)),
      tasks_(std::move(wakeup)),
      counters_(counters),
      server_(pool_, counters),
      faults_(vms_, server_, counters, options.longest_deferral),
      slices_(vms_, pool_, helper_, [this](task_queue::task work) { post(std::move(work)); }),
      helper_(1, "coppice-protect", SCHED_OTHER),
      thread_([this] { run(); }) {}

fault_thread::~fault_thread() {
  post([this] { stopping_ = true; });
  thread_.join();
}

void fault_thread::run() {
  ::pthread_setname_np(::pthread_self(), "coppice-fault");
  raise_priority();
  std::array<epoll_event, 32> events;
  while (!stopping_) {
    const int ready = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout());
    if (faults_.anything_waits()) faults_.retry();  // they come before new ones of other VMs, too
    for (int i = 0; i < ready; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == tasks_.fd()) {
        tasks_.clear_wakeups();
      } else if (const auto vm = vms_.find(fd); vm != vms_.end()) {
        read_faults(fd, *vm->second);
      }
    }
    if (faults_.anything_waits()) {
      faults_.retry();  // a buffer may have become free before a new one was counted as deferred
      faults_.give_up_overdue(engine_clock::now());
    }
    tasks_.run_all();
    slices_.begin_next();
  }
}

int fault_thread::timeout() const {
  if (!faults_.anything_waits()) return -1;
  return static_cast<int>(faults_.time_left(engine_clock::now())->count());
}

void fault_thread::read_faults(int uffd, attached_vm& vm) {
  std::array<uffd_msg, 64> messages;
  const ssize_t length = ::read(uffd, messages.data(), sizeof messages);
  if (length <= 0) return;  // EAGAIN: the fault was resolved by a protection change meanwhile
  const auto begin = engine_clock::now();
  const std::size_t count = static_cast<std::size_t>(length) / sizeof(uffd_msg);
  for (std::size_t i = 0; i < count; ++i) {
    if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
    const auto page = vm.page_of(messages[i].arg.pagefault.address);
    if (!page) continue;  // not RAM that was handed over: nothing that we protected
    faults_.add(vm, *page, begin);
    const auto service = engine_clock::now() - begin;
    counters_.fault_served(service);
    for (const auto& epoch : vm.epochs) {
      epoch->faults.fetch_add(1, std::memory_order_relaxed);
      raise_maximum(epoch->longest_fault_us, std::chrono::duration_cast<std::chrono::microseconds>(service).count());
    }
  }
}

result<void> fault_thread::attach(const std::shared_ptr<attached_vm>& vm, int uffd) {
  if (::fcntl(uffd, F_SETFL, ::fcntl(uffd, F_GETFL) | O_NONBLOCK) != 0) return errno_error("set the uffd non-blocking");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = uffd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, uffd, &event) != 0) return errno_error("watch the uffd");
  vms_[uffd] = vm;
  return {};
}

std::vector<std::shared_ptr<memory_epoch>> fault_thread::detach(attached_vm& vm) {
  auto closed = close_epochs_of(vm);
  faults_.forget(vm);
  const auto found = std::find_if(vms_.begin(), vms_.end(), [&](const auto& each) { return each.second.get() == &vm; });
  const auto keep_alive = vms_.extract(found);
  // A child that is being forked may hold a copy of it: close alone would not end the watch.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, keep_alive.key(), nullptr);
  vm.protection.reset();
  vm.end_lifting();
  return closed;
}

void fault_thread::keep_off(int cpu, bool wanted) {
  if (wanted) {
    kept_off_.push_back(cpu);
  } else {
    kept_off_.erase(std::find(kept_off_.begin(), kept_off_.end(), cpu));
  }
  cpu_bounds_.keep_off(kept_off_);
}

}  // namespace coppice
