// Writes the catalogue's table into a page, between its two marks.
#include <cstdio>

#include "base/file.hpp"
#include "metrics/catalog_table.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: metrics_table PAGE.md\n", stderr);
    return 2;
  }
  const std::filesystem::path path = argv[1];
  auto page = coppice::read_text_file(path);
  if (page) page = coppice::with_catalog_table(*page);
  const auto written = page ? coppice::write_text_file(path, *page) : coppice::result<void>(page.error());
  if (written) return 0;
  std::fprintf(stderr, "metrics_table: %s\n", written.error().message().c_str());
  return 1;
}
