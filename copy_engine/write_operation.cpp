#include "copy_engine/write_operation.hpp"

namespace coppice {

void write_operation::append(std::size_t page, const std::byte* content) {
  if (pages++ == 0) {
    first_page = page;
    offset = page * page_size;
  }
  if (!parts.empty() && static_cast<std::byte*>(parts.back().iov_base) + parts.back().iov_len == content) {
    parts.back().iov_len += page_size;
  } else {
    parts.push_back({const_cast<std::byte*>(content), page_size});  // writev(2) only reads it
  }
}

void write_operation::advance(std::uint64_t written) {
  offset += written;
  auto part = parts.begin();
  while (part != parts.end() && written >= part->iov_len) written -= (part++)->iov_len;
  parts.erase(parts.begin(), part);
  if (written > 0) {
    parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + written;
    parts.front().iov_len -= written;
  }
}

}  // namespace coppice
