#include "api/digest.hpp"

#include <openssl/crypto.h>
#include <openssl/sha.h>

namespace coppice {

sha256_digest sha256(std::string_view text) {
  sha256_digest digest{};
  // SAFETY: SHA256 reads `size` bytes of any kind; a char is one.
  ::SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

bool equal_in_constant_time(const sha256_digest& left, const sha256_digest& right) noexcept {
  return ::CRYPTO_memcmp(left.data(), right.data(), left.size()) == 0;
}

}  // namespace coppice
