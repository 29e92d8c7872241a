#include "copy_engine/captured_pages.hpp"

#include <algorithm>
#include <utility>

#include "base/image_digest.hpp"

namespace coppice {
namespace {

// Captured pages that wait for the bulk stream may be an eighth of what is free: with them a block is one write.
constexpr std::size_t most_waiting_of_free = 8;

}  // namespace

void captured_pages::take(const stream_cursor& cursor, image_writer& writer) {
  std::vector<capture_write> ready;
  for (bounce_buffer *buffer = epoch_.captures.take_all(), *next = nullptr; buffer != nullptr; buffer = next) {
    next = buffer->next;
    const bool was_in_flight = epoch_.states.at(buffer->page) == page_state::captured_in_flight;
    if (!was_in_flight && !cursor.has_passed(buffer->page)) {
      waiting_.emplace(buffer->page, buffer);
      continue;
    }
    write_operation* const writing = was_in_flight ? writer.bulk_write_of(buffer->page) : nullptr;
    (writing == nullptr ? ready : writing->overwrites).push_back({buffer, was_in_flight});
  }
  std::sort(ready.begin(), ready.end(), [](const capture_write& left, const capture_write& right) {
    return left.buffer->page < right.buffer->page;
  });
  write_later(ready);
}

void captured_pages::hurry_up(bool stream_stands) {
  if (!stream_stands && waiting_.size() * most_waiting_of_free <= pool_.free_pages()) return;
  for (const auto& [page, buffer] : std::exchange(waiting_, {})) ready_.push_back({buffer});
}

bounce_buffer* captured_pages::take_waiting(std::size_t page) {
  const auto found = waiting_.find(page);
  if (found == waiting_.end()) return nullptr;
  bounce_buffer* const buffer = found->second;
  waiting_.erase(found);
  return buffer;
}

void captured_pages::write(image_writer& writer) {
  write_operation operation;
  const auto flush = [&] {
    if (!operation.parts.empty()) writer.submit(std::exchange(operation, {}));
  };
  while (!ready_.empty() && writer.takes_captures()) {
    const capture_write next = ready_.front();
    ready_.pop_front();
    const bounce_buffer& buffer = *next.buffer;
    if (!next.must_write && is_zero_page(buffer.bytes())) {
      settle(next.buffer);
      continue;
    }
    const std::uint64_t offset = buffer.page * page_size;
    if (operation.parts.size() == block_pages || operation.offset + operation.parts.size() * page_size != offset)
      flush();
    if (operation.parts.empty()) operation.offset = offset;
    operation.parts.push_back({buffer.data, page_size});
    operation.captures.push_back(next);
  }
  flush();
}

void captured_pages::write_later(const std::vector<capture_write>& captures) {
  ready_.insert(ready_.end(), captures.begin(), captures.end());
}

void captured_pages::settle(bounce_buffer* buffer) noexcept {
  pool_.release(buffer);
  tally_.count_captured_page();
}

void captured_pages::release(const std::vector<capture_write>& unwanted) noexcept {
  for (const capture_write& each : unwanted) pool_.release(each.buffer);
}

void captured_pages::release_all() noexcept {
  for (const capture_write& each : std::exchange(ready_, {})) pool_.release(each.buffer);
  for (const auto& [page, buffer] : std::exchange(waiting_, {})) pool_.release(buffer);
}

void release_captures(memory_epoch& epoch, bounce_pool& pool) noexcept {
  for (bounce_buffer* buffer = epoch.captures.take_all(); buffer != nullptr;) {
    bounce_buffer* const next = buffer->next;  // the pool links it anew
    pool.release(buffer);
    buffer = next;
  }
}

}  // namespace coppice
