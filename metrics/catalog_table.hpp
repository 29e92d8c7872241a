// The catalogue as docs/metrics.md shows it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace coppice {

// A Markdown table, one row a metric, ordered as the catalogue; ends in a line feed.
std::string catalog_as_markdown();

// `page` with the table between its marks, <!-- table: begin --> and <!-- table: end -->, instead of what stands there.
// Errors: invalid_argument (a mark is missing).
result<std::string> with_catalog_table(std::string_view page);

}  // namespace coppice
