// The PEM files that TLS is set up with.
#pragma once

#include <string>

#include "base/result.hpp"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace coppice {

struct tls_files {
  std::string certificate;  // chain
  std::string key;
  std::string ca;  // what the other side's certificate must be signed by
};

// Loads the files that are named into `context`. Errors: invalid_argument (which file; a key that everybody may read; a
// certificate without its key).
result<void> load_tls_files(ssl_ctx_st* context, const tls_files& files);

}  // namespace coppice
