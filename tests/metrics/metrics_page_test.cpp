// docs/metrics.md says of the metrics what the catalogue says.
#include <gmock/gmock.h>

#include <algorithm>
#include <string_view>

#include "base/file.hpp"
#include "metrics/catalog.hpp"
#include "metrics/catalog_table.hpp"

namespace coppice {
namespace {

using testing::HasSubstr;

std::string page() {
  auto text = read_text_file(COPPICE_METRICS_PAGE);
  EXPECT_TRUE(text.ok()) << text.error().message();
  return *text;
}

bool is_catalogued(const std::string& name) {
  return std::ranges::any_of(catalog(), [&](const auto& metric) { return metric.name == name; });
}

TEST(metrics_page, has_the_catalogues_table) {
  const auto fresh = with_catalog_table(page());
  ASSERT_TRUE(fresh.ok()) << fresh.error().message();
  EXPECT_EQ(page(), *fresh) << "write it anew: build/dev/metrics/metrics_table docs/metrics.md";
}

TEST(metrics_page, names_no_metric_that_does_not_exist) {
  static constexpr std::string_view of_a_name = "abcdefghijklmnopqrstuvwxyz0123456789_";
  const auto text = page();
  std::size_t names = 0;
  for (std::size_t begin = 0; (begin = text.find_first_of(of_a_name, begin)) != std::string::npos;) {
    const std::size_t end = std::min(text.find_first_not_of(of_a_name, begin), text.size());
    const auto word = text.substr(begin, end - begin);
    begin = end;
    if (!word.starts_with("coppice_") && !word.starts_with("process_")) continue;
    EXPECT_TRUE(is_catalogued(word)) << word;
    ++names;
  }
  EXPECT_GE(names, catalog().size());
}

TEST(metrics_page, a_row_shows_name_kind_unit_labels_and_meaning) {
  EXPECT_THAT(
      catalog_as_markdown(),
      HasSubstr("\n| `coppice_branches_total` | counter | branches | `mode`: live, full, diff; `outcome`: ready, "
                "failed, cancelled | Branches that ended, by how: ready, failed or cancelled. |\n"));
}

TEST(metrics_page, without_marks_is_refused) {
  EXPECT_EQ(with_catalog_table("no marks").error().code, errc::invalid_argument);
  EXPECT_EQ(with_catalog_table("<!-- table: end --><!-- table: begin -->\n").error().code, errc::invalid_argument);
}

}  // namespace
}  // namespace coppice
