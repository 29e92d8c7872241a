#include "api/tls.hpp"

#include <fcntl.h>
#include <openssl/ssl.h>

#include "base/file.hpp"
#include "base/secret_file.hpp"

namespace coppice {

namespace ssl = boost::asio::ssl;

namespace {

using boost::system::error_code;

error wrong_file(const std::string& what, const std::string& file, const error_code& failure) {
  return {errc::invalid_argument, 0, what + " " + file + " can't be used: " + failure.message()};
}

// OpenSSL does not say why a file can't be opened.
result<void> readable(const std::string& what, const result<unique_fd>& opened) {
  if (opened.ok()) return {};
  return error{errc::invalid_argument, 0, what + ": " + opened.error().message()};
}

result<void> use_own(tls_context& context, const tls_files& files) {
  COPPICE_TRY(readable("TLS certificate", open_file(files.certificate, O_RDONLY)));
  COPPICE_TRY(readable("TLS key", open_secret("file", files.key)));
  error_code failure;
  context.use_certificate_chain_file(files.certificate, failure);
  if (failure) return wrong_file("TLS certificate", files.certificate, failure);
  context.use_private_key_file(files.key, tls_context::pem, failure);
  if (failure) return wrong_file("TLS key", files.key, failure);
  return {};
}

result<void> use_ca(tls_context& context, const std::string& file) {
  COPPICE_TRY(readable("TLS CA", open_file(file, O_RDONLY)));
  error_code failure;
  context.load_verify_file(file, failure);
  if (failure) return wrong_file("TLS CA", file, failure);
  return {};
}

std::shared_ptr<tls_context> new_context(tls_context::method method) {
  auto context = std::make_shared<tls_context>(method);
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  return context;
}

}  // namespace

result<std::shared_ptr<tls_context>> server_tls(const tls_files& files) {
  auto context = new_context(tls_context::tls_server);
  static constexpr unsigned char name[] = "coppiced";  // without it, clients that show certificates can't resume
  ::SSL_CTX_set_session_id_context(context->native_handle(), name, sizeof name);
  ::SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  COPPICE_TRY(use_own(*context, files));
  if (!files.ca.empty()) {
    COPPICE_TRY(use_ca(*context, files.ca));
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
  }
  return context;
}

result<std::shared_ptr<tls_context>> client_tls(const tls_files& files) {
  auto context = new_context(tls_context::tls_client);
  context->set_verify_mode(ssl::verify_peer);
  if (files.ca.empty()) {
    error_code failure;
    context->set_default_verify_paths(failure);
    if (failure) return wrong_file("TLS CA", "of the system", failure);
  } else {
    COPPICE_TRY(use_ca(*context, files.ca));
  }
  if (files.certificate.empty() != files.key.empty()) {
    return error{errc::invalid_argument, 0, "a TLS certificate needs its key, and a key its certificate"};
  }
  if (!files.certificate.empty()) COPPICE_TRY(use_own(*context, files));
  return context;
}

std::string peer_common_name(tls_stream& stream) {
  const std::unique_ptr<X509, decltype(&::X509_free)> shown(::SSL_get1_peer_certificate(stream.native_handle()),
                                                            &::X509_free);
  if (!shown) return {};
  char name[256];
  const int length =
      ::X509_NAME_get_text_by_NID(::X509_get_subject_name(shown.get()), NID_commonName, name, sizeof name);
  return length > 0 ? std::string(name, static_cast<std::size_t>(length)) : std::string();
}

}  // namespace coppice
