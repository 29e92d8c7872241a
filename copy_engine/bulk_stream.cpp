#include "copy_engine/bulk_stream.hpp"

#include <utility>

#include "base/image_digest.hpp"

namespace coppice {

result<void> bulk_stream::stream_block(save_buffer* into, const run_taker& take) {
  const auto block = cursor_.next_block();
  std::size_t page = block.first;
  auto outcome = stream(page, block.end, into, take);
  cursor_.passed(block, page);
  return outcome;
}

result<void> bulk_stream::stream(std::size_t& page, std::size_t end, save_buffer* into, const run_taker& take) {
  write_operation run;  // pages with content that end at `page`
  const auto end_run = [&] {
    if (run.pages > 0) take(std::exchange(run, {}));
  };
  result<void> outcome;
  while (page < end) {
    auto data = cursor_.next_data(page);
    if (!data) {
      outcome = std::move(data).error();
      break;
    }
    if (*data > page) {
      end_run();
      skip_hole(page, *data);
      page = *data;
      continue;
    }
    if (const std::byte* const content = take_page(page, into, run)) {
      run.append(page, content);
    } else {
      end_run();
    }
    ++page;
  }
  end_run();
  return outcome;
}

const std::byte* bulk_stream::take_page(std::size_t page, save_buffer* into, write_operation& run) {
  if (epoch_.states.claim(page)) {
    const std::byte* const in_ram = epoch_.memory->data() + page * page_size;
    if (!is_zero_page({in_ram, page_size})) return into != nullptr ? save_page(page, *into) : in_ram;
    if (epoch_.states.settle(page)) tally_.count_zero_page();
    return nullptr;
  }
  bounce_buffer* const buffer = captured_.take_waiting(page);
  if (buffer == nullptr) return nullptr;
  if (is_zero_page(buffer->bytes())) {
    captured_.settle(buffer);
    return nullptr;
  }
  run.captures.push_back({buffer});
  return buffer->data;
}

const std::byte* bulk_stream::save_page(std::size_t page, save_buffer& into) {
  const std::byte* const saved = into.append(epoch_.memory->data() + page * page_size);
  if (epoch_.states.settle(page)) return saved;
  into.drop_last();
  return nullptr;
}

void bulk_stream::skip_hole(std::size_t first, std::size_t end) noexcept {
  std::size_t skipped = 0;
  for (std::size_t page = first; page < end; ++page) {
    if (epoch_.states.skip(page)) ++skipped;
  }
  tally_.count_hole(skipped);
}

}  // namespace coppice
