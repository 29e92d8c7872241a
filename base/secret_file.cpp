#include "base/secret_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.hpp"

namespace coppice {

result<unique_fd> open_secret(std::string_view what, const std::filesystem::path& file) {
  auto opened = open_file(file, O_RDONLY);
  if (!opened.ok()) return opened;
  const auto named = std::string(what) + " " + file.string();
  struct stat about {};
  if (::fstat(opened->get(), &about) != 0) return errno_error(named);
  if ((about.st_mode & S_IRWXO) != 0)
    return error{errc::invalid_argument, 0, named + " is open to everybody: chmod o= it"};
  return opened;
}

}  // namespace coppice
