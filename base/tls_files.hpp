// The PEM files that TLS is set up with.
#pragma once

#include <string>

namespace coppice {

struct tls_files {
  std::string certificate;  // chain
  std::string key;
  std::string ca;  // what the other side's certificate must be signed by
};

}  // namespace coppice
