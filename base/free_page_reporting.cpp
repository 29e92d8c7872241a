#include "base/free_page_reporting.hpp"

#include <cstdlib>
#include <string>

#include "base/file.hpp"

namespace coppice {
namespace {

constexpr std::size_t reporting_feature = 5;  // bit of a virtio balloon
constexpr unsigned largest_order = 10;        // of a block of the page allocator (x86_64)

}  // namespace

std::optional<unsigned> free_page_reporting_order(const std::filesystem::path& sysfs) {
  const auto text = read_text_file(sysfs / "module/page_reporting/parameters/page_reporting_order");
  if (!text) return std::nullopt;
  const unsigned long order = std::strtoul(text->c_str(), nullptr, 10);
  if (order > largest_order) return std::nullopt;  // switched off: there are no such blocks
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(sysfs / "bus/virtio/drivers/virtio_balloon", ignored)) {
    const auto features = read_text_file(entry.path() / "features");
    if (features && features->size() > reporting_feature && (*features)[reporting_feature] == '1')
      return static_cast<unsigned>(order);
  }
  return std::nullopt;
}

}  // namespace coppice
