#include "base/tls_files.hpp"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/file.hpp"
#include "base/secret_file.hpp"

namespace coppice {
namespace {

// OpenSSL does not say why a file can't be opened.
result<void> check_readable(const std::string& what, const result<unique_fd>& opened) {
  if (opened.ok()) return {};
  return error{errc::invalid_argument, 0, what + ": " + opened.error().message()};
}

// `loaded`: what OpenSSL's function returned.
result<void> check_loaded(int loaded, const std::string& what, const std::string& file) {
  if (loaded == 1) return {};
  const char* const reason = ::ERR_reason_error_string(::ERR_peek_error());
  ::ERR_clear_error();  // later calls of this thread would report it as theirs
  return error{errc::invalid_argument, 0,
               what + " " + file + " can't be used: " + (reason != nullptr ? reason : "it is no PEM file")};
}

}  // namespace

result<void> load_tls_files(ssl_ctx_st* context, const tls_files& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return error{errc::invalid_argument, 0, "a TLS certificate needs its key, and a key its certificate"};
  }
  ::ERR_clear_error();
  if (!files.ca.empty()) {
    COPPICE_TRY(check_readable("TLS CA", open_file(files.ca, O_RDONLY)));
    COPPICE_TRY(check_loaded(::SSL_CTX_load_verify_file(context, files.ca.c_str()), "TLS CA", files.ca));
  }
  if (files.certificate.empty()) return {};
  const auto& [certificate, key, ca] = files;
  COPPICE_TRY(check_readable("TLS certificate", open_file(certificate, O_RDONLY)));
  COPPICE_TRY(check_readable("TLS key", open_secret("file", key)));
  COPPICE_TRY(
      check_loaded(::SSL_CTX_use_certificate_chain_file(context, certificate.c_str()), "TLS certificate", certificate));
  return check_loaded(::SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM), "TLS key", key);
}

}  // namespace coppice
