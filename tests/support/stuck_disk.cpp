#include "tests/support/stuck_disk.hpp"

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>

namespace coppice {
namespace {

constexpr fuse_ino_t file_node = 2;

stuck_disk& disk_of(fuse_req_t request) {
  return *static_cast<stuck_disk*>(fuse_req_userdata(request));
}

struct stat attributes(const stuck_disk& disk, fuse_ino_t node) {
  struct stat made {};
  made.st_ino = node;
  made.st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
  made.st_nlink = 1;
  if (node == file_node) made.st_size = static_cast<off_t>(disk.content().size());
  return made;
}

void on_lookup(fuse_req_t request, fuse_ino_t, const char* name) {
  if (std::string_view(name) != "file") {
    fuse_reply_err(request, ENOENT);
    return;
  }
  fuse_entry_param entry{};
  entry.ino = file_node;
  entry.attr = attributes(disk_of(request), file_node);
  fuse_reply_entry(request, &entry);
}

void on_getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
  const struct stat made = attributes(disk_of(request), node);
  fuse_reply_attr(request, &made, 1);
}

void on_setattr(fuse_req_t request, fuse_ino_t node, struct stat*, int, fuse_file_info*) {
  on_getattr(request, node, nullptr);  // the size stays
}

void on_open(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  file->direct_io = 1;
  fuse_reply_open(request, file);
}

void on_write(fuse_req_t request, fuse_ino_t, const char* data, size_t size, off_t offset, fuse_file_info*) {
  disk_of(request).write(data, size, static_cast<std::size_t>(offset));
  fuse_reply_write(request, size);
}

}  // namespace

stuck_disk::stuck_disk(std::size_t size) : content_(size) {
  fuse_lowlevel_ops operations{};
  operations.lookup = on_lookup;
  operations.getattr = on_getattr;
  operations.setattr = on_setattr;
  operations.open = on_open;
  operations.write = on_write;
  char name[] = "stuck-disk";
  char* arguments[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, arguments);
  fuse_session* const made = ::fuse_session_new(&args, &operations, sizeof operations, this);
  ::fuse_opt_free_args(&args);
  if (made == nullptr) return;
  if (::fuse_session_mount(made, folder_.path().c_str()) != 0) {
    ::fuse_session_destroy(made);
    return;
  }
  session_ = made;
  thread_ = std::thread([made] { ::fuse_session_loop(made); });
}

stuck_disk::~stuck_disk() {
  if (session_ == nullptr) return;
  release();
  ::fuse_session_exit(session_);
  ::fuse_session_unmount(session_);  // wakes the loop
  thread_.join();
  ::fuse_session_destroy(session_);
}

void stuck_disk::write(const char* data, std::size_t size, std::size_t offset) {
  std::unique_lock lock(mutex_);
  stuck_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return released_; });
  if (offset + size <= content_.size()) std::memcpy(content_.data() + offset, data, size);
}

bool stuck_disk::wait_for_stuck_write() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return stuck_; });
}

void stuck_disk::release() {
  const std::lock_guard lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

}  // namespace coppice
