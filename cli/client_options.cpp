#include "cli/client_options.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace coppice {

result<std::string> read_token(const std::string& file) {
  std::ifstream stream(file);
  if (!stream) return errno_error("token file " + file);
  std::string line;
  while (std::getline(stream, line)) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string token;
    while (words >> token) {
    }
    if (!token.empty()) return token;
  }
  return error{errc::invalid_argument, 0, "token file " + file + " holds no token"};
}

result<api_client> make_client(const client_options& options) {
  client_security security{{}, options.tls};
  if (!options.token_file.empty()) {
    auto token = read_token(options.token_file);
    if (!token.ok()) return std::move(token).error();
    security.token = *std::move(token);
  } else if (const char* const set = std::getenv("COPPICE_TOKEN")) {
    security.token = set;
  }
  return api_client::create(options.server, std::move(security));
}

}  // namespace coppice
