#include "api/tls.hpp"

#include <openssl/ssl.h>

namespace coppice {

namespace ssl = boost::asio::ssl;

result<std::shared_ptr<tls_context>> server_tls(const tls_files& files) {
  auto context = std::make_shared<tls_context>(tls_context::tls_server);
  static constexpr unsigned char name[] = "coppiced";  // without it, clients that show certificates can't resume
  ::SSL_CTX_set_session_id_context(context->native_handle(), name, sizeof name);
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  ::SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION);
  if (files.certificate.empty()) return error{errc::invalid_argument, 0, "TLS needs a certificate"};
  COPPICE_TRY(load_tls_files(context->native_handle(), files));
  if (!files.ca.empty()) context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
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
