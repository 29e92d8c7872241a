// Which daemon `coppice` talks to, and how it shows who it is.
#pragma once

#include <string>

#include "client/client.hpp"

namespace coppice {

struct client_options {
  std::string server = "http://127.0.0.1:8889";
  std::string token_file;  // empty: the token is $COPPICE_TOKEN, if that is set
  tls_files tls;
};

// A client as the options say. Errors: invalid_argument, not_found (no such file), io.
result<api_client> make_client(const client_options& options);

// The token of a file: the last word of its first line that is no comment, so that a line of coppiced's own file will
// do. Errors: invalid_argument (there is none), not_found, io.
result<std::string> read_token(const std::string& file);

}  // namespace coppice
