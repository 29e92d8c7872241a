// The vmstate file of coppice-vmm: a header (magic, version, length, checksum) and named sections of bytes. It is read
// on the machine and by the version that wrote it; Firecracker's format is another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/result.hpp"

namespace coppice::reference {

// Sections by name ("config", "vcpu0.regs", ...).
class state_sections {
 public:
  using bytes = std::vector<std::byte>;

  void set(const std::string& name, bytes content) { sections_[name] = std::move(content); }
  template <class T>
  void set_struct(const std::string& name, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto raw = std::as_bytes(std::span(&value, 1));
    sections_[name] = bytes(raw.begin(), raw.end());
  }

  // nullptr if there is none.
  const bytes* find(const std::string& name) const {
    const auto at = sections_.find(name);
    return at == sections_.end() ? nullptr : &at->second;
  }
  // Errors: corrupt (absent, or of another size).
  template <class T>
  result<T> get_struct(const std::string& name) const {
    static_assert(std::is_trivially_copyable_v<T>);
    const bytes* const content = find(name);
    if (content == nullptr || content->size() != sizeof(T)) {
      return error{errc::corrupt, 0, "vmstate section " + name + " is missing or has the wrong size"};
    }
    T value;
    std::memcpy(&value, content->data(), sizeof value);
    return value;
  }

  const std::map<std::string, bytes>& all() const noexcept { return sections_; }

 private:
  std::map<std::string, bytes> sections_;
};

// Creates or replaces the file and makes it durable (fsync). Errors: not_found (the folder), no_space, io.
result<void> write_state_file(const std::filesystem::path& path, const state_sections& state);

// Errors: not_found, corrupt (no vmstate, another version, cut short, or a checksum that does not match), io.
result<state_sections> read_state_file(const std::filesystem::path& path);

}  // namespace coppice::reference
