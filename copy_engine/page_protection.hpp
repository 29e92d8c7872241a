// Who protects a VM's RAM, and lifts that again. The seam that lets the fault thread's parts be tested without a uffd.
#pragma once

#include <memory>

#include "base/fd.hpp"
#include "base/guest_memory.hpp"
#include "copy_engine/write_protect.hpp"

namespace coppice {

// Any thread. What is const here: the RAM is changed, not the object. Errors: unavailable (the VM's process is gone),
// io.
class page_protection {
 public:
  virtual ~page_protection() = default;
  virtual result<void> protect(const memory_region& piece) const = 0;
  // Wakes who waits for a write there, too.
  virtual result<void> lift(const memory_region& piece) const = 0;
};

// The real one: owns the VM's uffd. When that is closed, the kernel lifts all.
class uffd_protection final : public page_protection {
 public:
  explicit uffd_protection(unique_fd uffd) : uffd_(std::move(uffd)) {}

  result<void> protect(const memory_region& piece) const override {
    return set_write_protection(uffd_.get(), piece.host_address, piece.size, true);
  }
  result<void> lift(const memory_region& piece) const override {
    return set_write_protection(uffd_.get(), piece.host_address, piece.size, false);
  }

 private:
  const unique_fd uffd_;
};

}  // namespace coppice
