#include "tests/support/stuck_disk.hpp"

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>
#include <optional>
#include <vector>

namespace coppice {
namespace {

constexpr fuse_ino_t first_file = 2;  // file i is node first_file + i

struct stuck_write {
  fuse_req_t request;
  std::size_t file;
  std::size_t end;
  std::span<std::byte> to;
  std::vector<char> data;
  std::chrono::steady_clock::time_point since;
};

// The server process's own.
struct server {
  stuck_disk::control* shared;
  std::span<std::byte> contents;
  std::size_t size;
  std::vector<std::size_t> lengths;  // of the files, as they are seen
  std::deque<stuck_write> waiting;

  // How long until the first write is due by the disk's latency; none if it waits for more than that.
  std::optional<std::chrono::milliseconds> due_in() const {
    const std::chrono::milliseconds latency(shared->latency_ms.load());
    if (waiting.empty() || latency.count() == 0) return std::nullopt;
    const auto left = waiting.front().since + latency - std::chrono::steady_clock::now();
    return std::max(std::chrono::ceil<std::chrono::milliseconds>(left), std::chrono::milliseconds(0));
  }

  void carry_out_allowed() {
    for (; !waiting.empty(); waiting.pop_front()) {
      const bool is_due = shared->released || due_in() == std::chrono::milliseconds(0);
      if (!is_due && shared->allowed == 0) break;
      if (!is_due) --shared->allowed;
      const stuck_write& next = waiting.front();
      std::memcpy(next.to.data(), next.data.data(), next.data.size());
      lengths[next.file] = std::max(lengths[next.file], next.end);
      fuse_reply_write(next.request, next.data.size());
    }
    shared->waiting = waiting.size();
  }
};

server& server_of(fuse_req_t request) {
  return *static_cast<server*>(fuse_req_userdata(request));
}

struct stat attributes(const server& of, fuse_ino_t node) {
  struct stat made {};
  made.st_ino = node;
  made.st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
  made.st_nlink = 1;
  if (node != FUSE_ROOT_ID) made.st_size = static_cast<off_t>(of.lengths[node - first_file]);
  return made;
}

void on_lookup(fuse_req_t request, fuse_ino_t, const char* name) {
  const auto number = static_cast<std::size_t>(std::atoi(name));
  if (number >= server_of(request).contents.size() / server_of(request).size || std::to_string(number) != name) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  fuse_entry_param entry{};
  entry.ino = first_file + number;
  entry.attr = attributes(server_of(request), entry.ino);
  fuse_reply_entry(request, &entry);
}

void on_getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
  const struct stat made = attributes(server_of(request), node);
  fuse_reply_attr(request, &made, 1);
}

void on_setattr(fuse_req_t request, fuse_ino_t node, struct stat*, int, fuse_file_info*) {
  on_getattr(request, node, nullptr);  // the size stays
}

void on_open(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  file->direct_io = 1;
  fuse_reply_open(request, file);
}

void on_write(fuse_req_t request, fuse_ino_t node, const char* data, size_t size, off_t offset, fuse_file_info*) {
  server& self = server_of(request);
  const std::size_t begin = (node - first_file) * self.size + static_cast<std::size_t>(offset);
  if (static_cast<std::size_t>(offset) + size > self.size) {
    fuse_reply_err(request, EFBIG);
    return;
  }
  self.waiting.push_back({request,
                          node - first_file,
                          static_cast<std::size_t>(offset) + size,
                          self.contents.subspan(begin, size),
                          {data, data + size},
                          std::chrono::steady_clock::now()});
  self.carry_out_allowed();
}

// Ends the process when the mount, or the test, is gone.
[[noreturn]] void serve(const char* folder, int wake, int ready, server& self) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  fuse_lowlevel_ops operations{};
  operations.lookup = on_lookup;
  operations.getattr = on_getattr;
  operations.setattr = on_setattr;
  operations.open = on_open;
  operations.write = on_write;
  char name[] = "stuck-disk";
  char* arguments[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, arguments);
  fuse_session* const session = ::fuse_session_new(&args, &operations, sizeof operations, &self);
  const bool mounted = session != nullptr && ::fuse_session_mount(session, folder) == 0;
  if (::write(ready, mounted ? "y" : "n", 1) != 1 || !mounted) ::_exit(1);
  fuse_buf buffer{};
  pollfd events[2] = {{::fuse_session_fd(session), POLLIN, 0}, {wake, POLLIN, 0}};
  for (;;) {
    const auto due_in = self.due_in();
    if (::poll(events, 2, due_in ? static_cast<int>(due_in->count()) : -1) < 0) break;
    eventfd_t ignored = 0;
    if (events[1].revents != 0) ::eventfd_read(wake, &ignored);
    self.carry_out_allowed();
    if (events[0].revents == 0) continue;
    if (::fuse_session_receive_buf(session, &buffer) <= 0) break;
    ::fuse_session_process_buf(session, &buffer);
  }
  ::_exit(0);
}

}  // namespace

stuck_disk::stuck_disk(std::size_t size, std::size_t files, of kind)
    : size_(size), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  constexpr std::size_t head = 4096;
  void* const shared = ::mmap(nullptr, head + size * files, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  control_ = new (shared) control{};
  contents_ = {static_cast<std::byte*>(shared) + head, size * files};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return;
  const unique_fd ready(ends[0]);
  unique_fd tell(ends[1]);
  server_ = ::fork();
  if (server_ == 0) {
    server self{control_, contents_, size, std::vector<std::size_t>(files, kind == of::appending ? 0 : size), {}};
    serve(folder_.path().c_str(), wake_.get(), tell.get(), self);
  }
  tell.reset();
  char answer = 'n';
  mounted_ = ::read(ready.get(), &answer, 1) == 1 && answer == 'y';
}

stuck_disk::~stuck_disk() {
  if (server_ > 0) {
    ::kill(server_, SIGKILL);
    ::waitpid(server_, nullptr, 0);
  }
  if (mounted_) ::umount2(folder_.path().c_str(), MNT_DETACH);
  ::munmap(control_,
           static_cast<std::size_t>(contents_.data() + contents_.size() - reinterpret_cast<std::byte*>(control_)));
}

bool stuck_disk::wait_for_stuck_write() const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (control_->waiting == 0) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::sched_yield();
  }
  return true;
}

void stuck_disk::allow(std::size_t writes) {
  control_->allowed += writes;
  ::eventfd_write(wake_.get(), 1);
}

void stuck_disk::be_slow(std::chrono::milliseconds latency) {
  control_->latency_ms = latency.count();
  ::eventfd_write(wake_.get(), 1);
}

void stuck_disk::release() {
  control_->released = true;
  ::eventfd_write(wake_.get(), 1);
}

}  // namespace coppice
