#include "metrics/catalog_table.hpp"

#include "metrics/catalog.hpp"

namespace coppice {
namespace {

// Of a label with more values than fit a cell (tools/check_prose.py), how many there are.
std::string describe(const label_definition& label) {
  constexpr std::size_t most_values = 8;
  std::string text = "`" + std::string(label.name) + "`";
  if (label.values.size() > most_values) {
    return text + ": one of the " + std::to_string(label.values.size()) + " kinds of failure ([API](api.md#failure))";
  }
  std::string_view separator = ": ";
  for (const std::string_view value : label.values) {
    text.append(separator).append(value);
    separator = ", ";
  }
  return text;
}

std::string describe(std::span<const label_definition> labels) {
  std::string text;
  for (const label_definition& label : labels) {
    if (!text.empty()) text += "; ";
    text += describe(label);
  }
  return text;
}

}  // namespace

std::string catalog_as_markdown() {
  std::string table = "| metric | kind | unit | labels and their values | meaning |\n|---|---|---|---|---|\n";
  for (const metric_definition& metric : catalog()) {
    table.append("| `").append(metric.name).append("` | ").append(to_string(metric.kind)).append(" | ");
    table.append(metric.unit).append(" | ").append(describe(metric.labels)).append(" | ");
    table.append(metric.help).append(" |\n");
  }
  return table;
}

result<std::string> with_catalog_table(std::string_view page) {
  constexpr std::string_view begin_mark = "<!-- table: begin -->\n", end_mark = "<!-- table: end -->";
  const auto begin = page.find(begin_mark), end = page.find(end_mark);
  if (begin == page.npos || end == page.npos || end < begin)
    return error{errc::invalid_argument, 0, "the page has no '<!-- table: begin -->' with its end"};
  return std::string(page.substr(0, begin)).append(begin_mark).append(catalog_as_markdown()).append(page.substr(end));
}

}  // namespace coppice
