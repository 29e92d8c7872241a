#include "copy_engine/fault_thread.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <array>
#include <cstring>

#include "base/log.hpp"
#include "copy_engine/write_protect.hpp"

namespace coppice {
namespace {

// Between two slices: lets a fault come through that one has made begin anew.
constexpr std::chrono::microseconds slice_rest{100};

// The pre-arm goes over the pages touched meanwhile again while there are more than this, a few times at most: what is
// left is work inside the pause.
constexpr std::size_t few_touched_pages = 8;
constexpr unsigned most_prearm_rounds = 6;
constexpr std::size_t slice_touched_pages = 512;

// Faults are answered before anything else runs: each one is a vCPU that stands still.
void raise_priority() {
  sched_param parameters{};
  parameters.sched_priority = 1;
  if (::pthread_setschedparam(::pthread_self(), SCHED_FIFO, &parameters) == 0) return;
  if (::setpriority(PRIO_PROCESS, 0, -10) != 0) {
    spdlog::warn("copy engine: no right to raise the fault thread's priority (CAP_SYS_NICE): guests may stall longer");
  }
}

std::chrono::microseconds since(engine_clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::microseconds>(engine_clock::now() - begin);
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
    : longest_deferral_(options.longest_deferral),
      pool_(std::move(pool)),
      epoll_(std::move(epoll)),
      tasks_(std::move(wakeup)),
      counters_(counters),
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
    const int ready = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), deferral_timeout());
    if (deferred_.load(std::memory_order_relaxed) > 0) retry_deferred();  // they come before new ones of other VMs, too
    for (int i = 0; i < ready; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == tasks_.fd()) {
        tasks_.clear_wakeups();
      } else if (const auto vm = vms_.find(fd); vm != vms_.end()) {
        read_faults(*vm->second);
      }
    }
    if (deferred_.load(std::memory_order_relaxed) > 0) {
      retry_deferred();  // a buffer may have become free before a new one was counted as deferred
      give_up_overdue();
    }
    tasks_.run_all();
    begin_slice();
  }
}

result<void> fault_thread::attach(const std::shared_ptr<attached_vm>& vm) {
  const int fd = vm->uffd->get();
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) return errno_error("set the uffd non-blocking");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return errno_error("watch the uffd");
  vms_[fd] = vm;
  return {};
}

std::vector<std::shared_ptr<memory_epoch>> fault_thread::detach_vm(attached_vm& vm) {
  const auto epochs = std::exchange(vm.epochs, {});
  for (const auto& epoch : epochs) {
    epoch->phase = epoch_phase::detached;
    if (auto done = std::exchange(epoch->step_done, nullptr)) done(error{errc::unavailable, 0, "the VM is gone"});
  }
  deferred_.fetch_sub(vm.deferred_faults.size(), std::memory_order_relaxed);
  vm.deferred_faults.clear();
  const auto keep_alive = vms_.extract(vm.uffd->get());
  // A child that is being forked may hold a copy of it: close alone would not end the watch.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, vm.uffd->get(), nullptr);
  vm.uffd.reset();
  end_lifting(vm);
  return epochs;
}

void fault_thread::begin_prearm(const std::shared_ptr<memory_epoch>& epoch, copy_session::completion done) {
  if (epoch->phase != epoch_phase::idle || !epoch->vm->uffd) {
    return done(error{epoch->vm->uffd ? errc::internal : errc::unavailable, 0,
                      "pre-arm: the VM is gone or the branch has begun"});
  }
  epoch->phase = epoch_phase::prearming;
  epoch->is_touched.assign(epoch->states.size(), false);
  epoch->prearm_begin = engine_clock::now();
  epoch->step_done = std::move(done);
  epoch->vm->epochs.push_back(epoch);
  end_lifting(*epoch->vm);  // an earlier branch's protection serves this one
}

void fault_thread::keep_off(int cpu, bool wanted) {
  if (wanted) {
    kept_off_.push_back(cpu);
  } else {
    kept_off_.erase(std::find(kept_off_.begin(), kept_off_.end(), cpu));
  }
  cpu_bounds_.keep_off(kept_off_);
}

void fault_thread::begin_slice() {
  if (slice_under_way_) return;
  // The VM after the last one served that has work.
  const auto has_work = [](const auto& entry) {
    return next_to_lift(*entry.second).has_value() ||
           std::any_of(entry.second->epochs.begin(), entry.second->epochs.end(),
                       [](const auto& epoch) { return epoch->phase == epoch_phase::prearming; });
  };
  auto next = std::find_if(vms_.upper_bound(last_sliced_), vms_.end(), has_work);
  if (next == vms_.end()) next = std::find_if(vms_.begin(), vms_.end(), has_work);
  if (next == vms_.end()) return trim_slice();
  last_sliced_ = next->first;
  if (const auto piece = next_to_lift(*next->second)) return lift_slice(next->second, *piece);
  const auto epoch = next_to_prearm();
  if (epoch->prearm_offset < epoch->memory->size()) {
    prearm_slice(epoch->vm, epoch);
  } else {
    prearm_touched(epoch->vm, epoch);
  }
}

// In turns, pre-arms that begin together would all end late, and cost their guests faults until then. By its RAM, so
// that a small one need not wait for a large one.
std::shared_ptr<memory_epoch> fault_thread::next_to_prearm() const {
  const auto due = [](const memory_epoch& epoch) {
    return epoch.prearm_begin + std::chrono::milliseconds(epoch.memory->size() / (4 * mib));
  };
  std::shared_ptr<memory_epoch> first;
  for (const auto& [fd, vm] : vms_) {
    for (const auto& epoch : vm->epochs) {
      if (epoch->phase == epoch_phase::prearming && (!first || due(*epoch) < due(*first))) first = epoch;
    }
  }
  return first;
}

// While no VM is branched: the faults of one that is wait for bounce memory, and the first slice of its pre-arm waits
// for this one.
void fault_thread::trim_slice() {
  const auto is_branched = [](const auto& entry) { return !entry.second->epochs.empty(); };
  if (!trim_offset_ || !pool_.is_unused() || std::any_of(vms_.begin(), vms_.end(), is_branched)) return;
  const std::uint64_t offset = *trim_offset_, size = slice_pages * page_size;
  trim_offset_.reset();
  if (offset + size < pool_.size()) trim_offset_ = offset + size;
  slice_under_way_ = true;
  helper_.post([this, offset, size] {
    pool_.trim(offset, size);
    post([this] { slice_under_way_ = false; });
  });
}

void fault_thread::change_protection(const std::shared_ptr<attached_vm>& vm, std::vector<memory_region> pieces,
                                     bool protect, std::function<void(result<void>)> done) {
  slice_under_way_ = true;
  helper_.post([this, uffd = vm->uffd, pieces = std::move(pieces), protect, done = std::move(done)] {
    result<void> outcome;
    for (const memory_region& piece : pieces) {
      if (piece.size == 0) continue;
      outcome = set_write_protection(uffd->get(), piece.host_address, piece.size, protect);
      if (!outcome) break;
    }
    std::this_thread::sleep_for(slice_rest);
    post([this, outcome = std::move(outcome), done] {
      slice_under_way_ = false;
      done(outcome);
    });
  });
}

void fault_thread::prearm_slice(const std::shared_ptr<attached_vm>& vm, const std::shared_ptr<memory_epoch>& epoch) {
  const memory_region piece = vm->piece_at(epoch->prearm_offset, slice_pages * page_size);
  change_protection(vm, {piece}, true, [this, epoch, piece](const result<void>& armed) {
    if (epoch->phase != epoch_phase::prearming) return;  // given up meanwhile
    if (!armed) return prearm_failed(*epoch, armed);
    epoch->prearm_offset = piece.file_offset + piece.size;
    if (epoch->prearm_offset >= epoch->vm->memory->size()) end_prearm_round(*epoch);
  });
}

// Takes up to slice_touched_pages of the pages touched in the round before, and protects them again.
void fault_thread::prearm_touched(const std::shared_ptr<attached_vm>& vm, const std::shared_ptr<memory_epoch>& epoch) {
  const std::size_t count = std::min(epoch->retouch.size(), slice_touched_pages);
  const auto first = epoch->retouch.end() - static_cast<std::ptrdiff_t>(count);
  std::vector<std::size_t> pages(first, epoch->retouch.end());
  epoch->retouch.erase(first, epoch->retouch.end());
  for (const std::size_t page : pages) epoch->is_touched[page] = false;  // from now on a fault marks it again
  change_protection(vm, pieces_of(*vm, pages), true, [this, epoch](const result<void>& armed) {
    if (epoch->phase != epoch_phase::prearming) return;
    if (!armed) return prearm_failed(*epoch, armed);
    if (epoch->retouch.empty()) end_prearm_round(*epoch);
  });
}

void fault_thread::prearm_failed(memory_epoch& epoch, const result<void>& outcome) {
  epoch.phase = epoch_phase::failed;
  std::exchange(epoch.step_done, nullptr)(outcome);
}

void fault_thread::end_prearm_round(memory_epoch& epoch) {
  if (++epoch.prearm_rounds < most_prearm_rounds && epoch.touched.size() > few_touched_pages) {
    epoch.retouch = std::exchange(epoch.touched, {});
    return;
  }
  epoch.phase = epoch_phase::prearmed;
  epoch.prearm_us.store(since(epoch.prearm_begin).count(), std::memory_order_relaxed);
  std::exchange(epoch.step_done, nullptr)({});
}

void fault_thread::rearm(memory_epoch& epoch, const copy_session::completion& done) {
  if (epoch.phase != epoch_phase::prearmed) return done(error{errc::internal, 0, "re-arm without a pre-arm"});
  for (const memory_region& piece : pieces_of(*epoch.vm, epoch.touched)) {
    if (auto armed = set_write_protection(epoch.vm->uffd->get(), piece.host_address, piece.size, true); !armed) {
      epoch.phase = epoch_phase::failed;
      return done(armed);
    }
  }
  epoch.touched = {};
  epoch.is_touched = {};
  epoch.phase = epoch_phase::active;
  begin_lifting(*epoch.vm);
  done({});
}

// Sorts the pages. Runs of neighbours are one piece.
std::vector<memory_region> fault_thread::pieces_of(const attached_vm& vm, std::vector<std::size_t>& pages) {
  std::vector<memory_region> pieces;
  std::sort(pages.begin(), pages.end());
  for (std::size_t first = 0; first < pages.size();) {
    std::size_t last = first + 1;
    while (last < pages.size() && pages[last] == pages[last - 1] + 1) ++last;
    vm.for_each_piece(pages[first], pages[first] + (last - first),
                      [&](const memory_region& piece) { pieces.push_back(piece); });
    first = last;
  }
  return pieces;
}

void fault_thread::detach(memory_epoch& epoch, std::function<void()> done) {
  attached_vm& vm = *epoch.vm;
  const bool is_known = epoch.phase != epoch_phase::idle && epoch.phase != epoch_phase::detached;
  epoch.phase = epoch_phase::detached;
  if (!is_known) return done();
  std::erase_if(vm.epochs, [&](const auto& other) { return other.get() == &epoch; });
  if (auto step = std::exchange(epoch.step_done, nullptr)) step(error{errc::cancelled, 0, "the branch was given up"});
  if (!vm.uffd) return done();
  // Not while another needs all: its pre-arm has called off a lifting, of which a slice may still be under way.
  if (!vm.lift_offset && !is_all_needed(vm)) begin_lifting(vm);
  if (!vm.epochs.empty()) return done();
  vm.when_lifted.push_back(std::move(done));
  if (*vm.lift_offset >= vm.memory->size()) end_lifting(vm);
}

bool fault_thread::is_all_needed(const attached_vm& vm) {
  return std::any_of(vm.epochs.begin(), vm.epochs.end(), [](const auto& epoch) {
    return epoch->phase == epoch_phase::prearming || epoch->phase == epoch_phase::prearmed;
  });
}

void fault_thread::begin_lifting(attached_vm& vm) {
  vm.lift_offset = 0;
  vm.saved_pages = 0;
}

std::optional<memory_region> fault_thread::next_to_lift(attached_vm& vm) {
  if (!vm.lift_offset || *vm.lift_offset >= vm.memory->size()) return std::nullopt;
  const memory_region piece = vm.piece_at(*vm.lift_offset, slice_pages * page_size);
  const std::size_t end = (piece.file_offset + piece.size) / page_size;
  while (vm.saved_pages < end && is_saved(vm, vm.saved_pages)) ++vm.saved_pages;  // it stays so until an epoch begins
  if (vm.saved_pages < end) return std::nullopt;
  return piece;
}

void fault_thread::lift_slice(const std::shared_ptr<attached_vm>& vm, const memory_region& piece) {
  change_protection(vm, {piece}, false, [this, vm, piece](const result<void>& lifted) {
    if (vm->lift_offset != piece.file_offset) return;  // no longer wanted
    if (!lifted) {
      if (lifted.error().code != errc::unavailable) spdlog::error("copy engine: {}", lifted.error().message());
      return end_lifting(*vm);
    }
    vm->lift_offset = piece.file_offset + piece.size;
    if (*vm->lift_offset >= vm->memory->size() && vm->epochs.empty()) end_lifting(*vm);
  });
}

void fault_thread::end_lifting(attached_vm& vm) {
  vm.lift_offset.reset();
  for (auto& done : std::exchange(vm.when_lifted, {})) done();
}

void fault_thread::read_faults(attached_vm& vm) {
  std::array<uffd_msg, 64> messages;
  const ssize_t length = ::read(vm.uffd->get(), messages.data(), sizeof messages);
  if (length <= 0) return;  // EAGAIN: the fault was resolved by a protection change meanwhile
  const auto begin = engine_clock::now();
  const std::size_t count = static_cast<std::size_t>(length) / sizeof(uffd_msg);
  for (std::size_t i = 0; i < count; ++i) {
    if (messages[i].event != UFFD_EVENT_PAGEFAULT) continue;
    const auto page = vm.page_of(messages[i].arg.pagefault.address);
    if (!page) continue;                                  // not RAM that was handed over: nothing that we protected
    const bool must_queue = !vm.deferred_faults.empty();  // those that wait come first
    if (!serve_fault(vm, *page, vm.around.window_for(*page), must_queue ? 0 : pool_.available_to(vm.bounce))) {
      vm.deferred_faults.push_back({*page, begin});
      deferred_.fetch_add(1);
      counters_.deferred_faults.fetch_add(1, std::memory_order_relaxed);
    }
    const auto service = engine_clock::now() - begin;
    counters_.fault_served(service);
    for (const auto& epoch : vm.epochs) {
      epoch->faults.fetch_add(1, std::memory_order_relaxed);
      raise_maximum(epoch->longest_fault_us, std::chrono::duration_cast<std::chrono::microseconds>(service).count());
    }
  }
}

bool fault_thread::is_saved(const attached_vm& vm, std::size_t page) {
  return std::all_of(vm.epochs.begin(), vm.epochs.end(), [page](const auto& epoch) {
    return epoch->phase == epoch_phase::failed ||
           (epoch->phase == epoch_phase::active && !epoch->states.needs_capture(page));
  });
}

void fault_thread::lift(const attached_vm& vm, const memory_region& piece) {
  if (auto lifted = set_write_protection(vm.uffd->get(), piece.host_address, piece.size, false); !lifted) {
    if (lifted.error().code != errc::unavailable) spdlog::error("copy engine: {}", lifted.error().message());
  }
}

// No epoch needs the page, nor such neighbours of it: lifted together, they fault once and not each by itself.
void fault_thread::lift_saved(const attached_vm& vm, std::size_t page) {
  const std::size_t block_begin = page / block_pages * block_pages;
  const std::size_t block_end = std::min(block_begin + block_pages, vm.memory->size() / page_size);
  std::size_t first = page, end = page + 1;
  while (first > block_begin && is_saved(vm, first - 1)) --first;
  while (end < block_end && is_saved(vm, end)) ++end;
  vm.for_each_piece(first, end, [&](const memory_region& piece) { lift(vm, piece); });
}

bool fault_thread::serve_fault(attached_vm& vm, std::size_t page, std::size_t window, std::size_t buffers) {
  if (is_saved(vm, page)) {
    lift_saved(vm, page);
    return true;
  }
  const memory_region piece = vm.piece_at(page * page_size, window * page_size);
  const std::size_t end = page + piece.size / page_size;  // the window may reach over a region's end
  std::size_t needed = 0;
  for (const auto& epoch : vm.epochs) {
    for (std::size_t each = page; each < end && epoch->phase == epoch_phase::active; ++each) {
      if (epoch->states.needs_capture(each)) ++needed;
    }
  }
  if (needed > buffers && window > 1) return serve_fault(vm, page, 1, buffers);
  for (const auto& epoch : vm.epochs) {
    bool captures = false;
    for (std::size_t each = page; each < end; ++each) {
      if (epoch->phase == epoch_phase::active) {
        if (!epoch->states.needs_capture(each)) continue;
        if (buffers == 0) return false;
        --buffers;
        capture(*epoch, each);
        captures = true;
      } else if (epoch->phase != epoch_phase::failed && !epoch->is_touched[each]) {
        epoch->is_touched[each] = true;
        epoch->touched.push_back(each);
        ++epoch->touches_of_block[each / block_pages];
      }
    }
    if (captures) epoch->capturing_faults.fetch_add(1, std::memory_order_relaxed);
  }
  lift(vm, piece);
  return true;
}

void fault_thread::capture(memory_epoch& epoch, std::size_t page) {
  bounce_buffer* const buffer = pool_.acquire(epoch.vm->bounce);
  buffer->page = page;
  std::memcpy(buffer->data, epoch.memory->data() + page * page_size, page_size);
  if (!epoch.states.capture(page)) return pool_.release(buffer);  // the bulk stream settled it just now
  counters_.captured_pages.fetch_add(1, std::memory_order_relaxed);
  if (epoch.captures.push(buffer)) epoch.wake_copier();
}

// One fault of each VM in turn: however many wait in one of them, the others have their share of what is free.
void fault_thread::retry_deferred() {
  for (bool served = true; served;) {
    served = false;
    auto next = vms_.upper_bound(last_retried_);
    for (std::size_t left = vms_.size(); left > 0; --left, ++next) {
      if (next == vms_.end()) next = vms_.begin();
      attached_vm& vm = *next->second;
      deferred_.fetch_sub(lift_saved_deferred(vm), std::memory_order_relaxed);
      if (vm.deferred_faults.empty()) continue;
      if (!serve_fault(vm, vm.deferred_faults.front().page, 1, pool_.available_to(vm.bounce))) continue;
      vm.deferred_faults.pop_front();
      deferred_.fetch_sub(1, std::memory_order_relaxed);
      last_retried_ = next->first;
      served = true;
    }
  }
}

std::size_t fault_thread::lift_saved_deferred(attached_vm& vm) {
  return std::erase_if(vm.deferred_faults, [&vm](const deferred_fault& fault) {
    if (!is_saved(vm, fault.page)) return false;
    lift_saved(vm, fault.page);
    return true;
  });
}

int fault_thread::deferral_timeout() const {
  if (deferred_.load(std::memory_order_relaxed) == 0) return -1;
  auto oldest = engine_clock::time_point::max();
  for (const auto& [fd, vm] : vms_) {
    if (!vm->deferred_faults.empty()) oldest = std::min(oldest, vm->deferred_faults.front().since);
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(oldest + longest_deferral_ - engine_clock::now());
  return static_cast<int>(std::max<std::int64_t>(left.count(), 0));
}

void fault_thread::give_up_overdue() {
  const auto overdue = engine_clock::now() - longest_deferral_;
  for (const auto& [fd, vm] : vms_) {
    if (!vm->deferred_faults.empty() && vm->deferred_faults.front().since <= overdue)
      give_up(*vm, vm->deferred_faults.front().page);
  }
  retry_deferred();
}

// The guest comes before its branches: those that still need the page are over, and it may be written.
void fault_thread::give_up(attached_vm& vm, std::size_t page) {
  for (const auto& epoch : vm.epochs) {
    if (epoch->phase != epoch_phase::active || !epoch->states.needs_capture(page)) continue;
    epoch->phase = epoch_phase::failed;
    epoch->given_up = error{errc::unavailable, 0,
                            "the guest waited " + std::to_string(longest_deferral_.count()) +
                                " ms for bounce memory: the disk is too slow for its writes"};
    epoch->fail_copy(epoch, *epoch->given_up);
  }
}

}  // namespace coppice
