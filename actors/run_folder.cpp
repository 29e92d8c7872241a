#include "actors/run_folder.hpp"

#include <sys/un.h>

#include <algorithm>

#include "base/file.hpp"

namespace coppice {

result<void> check_run_dir(const std::filesystem::path& run_dir) {
  const auto longest = run_folder{run_dir / "sb-0123456789ab"}.uffd_socket().native().size();
  if (longest < sizeof(sockaddr_un::sun_path)) return {};
  return error{errc::invalid_argument, 0,
               "the root's path is too long for the VMs' sockets (" + std::to_string(longest) + " bytes of " +
                   std::to_string(sizeof(sockaddr_un::sun_path) - 1) + ", below " + run_dir.string() +
                   "): choose a shorter --root"};
}

std::string log_tail(const std::filesystem::path& log_file, unsigned most_lines, std::size_t most_bytes) {
  auto text = read_file_end(log_file, most_bytes);
  if (!text) return {};
  auto tail = *std::move(text);
  std::erase(tail, '\r');  // a console's lines end by both
  while (!tail.empty() && tail.back() == '\n') tail.pop_back();
  std::size_t first = tail.size();
  for (unsigned lines = 0; lines < most_lines && first != std::string::npos && first > 0; ++lines)
    first = tail.rfind('\n', first - 1);
  if (first != std::string::npos && first > 0) tail.erase(0, first + 1);
  std::replace_if(
      tail.begin(), tail.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, '|');
  return tail;
}

}  // namespace coppice
