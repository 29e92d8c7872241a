#include "client/client.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "api/tls.hpp"
#include "base/http_status.hpp"
#include "base/units.hpp"

namespace coppice {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;

namespace {

using generic = boost::asio::generic::stream_protocol;

constexpr std::uint64_t most_answer_bytes = 256 * mib;

bool is_ip(const std::string& host) {
  beast::error_code failure;
  boost::asio::ip::make_address(host, failure);
  return !failure;
}

}  // namespace

// One exchange on a connection of its own: each step starts an asynchronous operation and runs it to its end.
class api_client::exchange {
 public:
  exchange(const api_client& client) : client_(client) { stream_.expires_after(client.timeout_); }

  result<void> connect() {
    auto endpoints = resolve();
    if (!endpoints.ok()) return std::move(endpoints).error();
    beast::error_code failure;
    stream_.async_connect(*endpoints, [&](beast::error_code outcome, const generic::endpoint&) { failure = outcome; });
    run();
    if (failure == beast::error::timeout) return timed_out();
    if (failure) {
      return error{errc::unavailable, 0,
                   "cannot connect to coppiced at " + client_.url() + ": " + failure.message() +
                       "; is it running? (start it with coppiced --root DIR, or name another with --server)"};
    }
    return client_.server_.secure ? shake_hands() : result<void>();
  }

  result<http_answer> perform(const http::request<http::string_body>& request) {
    return tls_ ? perform_on(*tls_, request) : perform_on(stream_, request);
  }

 private:
  result<std::vector<generic::endpoint>> resolve() {
    std::vector<generic::endpoint> endpoints;
    if (client_.server_.port.empty()) {
      endpoints.emplace_back(boost::asio::local::stream_protocol::endpoint(client_.server_.authority));
      return endpoints;
    }
    tcp::resolver resolver(context_);
    beast::error_code failure;
    const auto found = resolver.resolve(client_.server_.host, client_.server_.port, failure);
    if (failure) {
      return error{errc::unavailable, 0, "cannot resolve " + client_.server_.host + ": " + failure.message()};
    }
    for (const auto& each : found) endpoints.emplace_back(each.endpoint());
    return endpoints;
  }

  result<void> shake_hands() {
    auto context = client_tls(client_.security_.tls);
    if (!context.ok()) return std::move(context).error();
    tls_context_ = *std::move(context);
    tls_.emplace(stream_, *tls_context_);
    const std::string& host = client_.server_.host;
    tls_->set_verify_callback(boost::asio::ssl::host_name_verification(host));
    // SAFETY: a macro of OpenSSL's that casts away const; the name is only read.
    if (!is_ip(host)) ::SSL_set_tlsext_host_name(tls_->native_handle(), host.c_str());
    beast::error_code failure;
    tls_->async_handshake(tls_stream::client, [&](beast::error_code outcome) { failure = outcome; });
    run();
    if (failure == beast::error::timeout) return timed_out();
    if (failure) {
      return error{errc::unavailable, 0,
                   "no TLS with coppiced at " + client_.url() + ": " + failure.message() +
                       "; see --tls-ca, and --tls-cert and --tls-key if it wants a certificate"};
    }
    return {};
  }

  template <class Stream>
  result<http_answer> perform_on(Stream& stream, const http::request<http::string_body>& request) {
    beast::error_code failure;
    const auto record = [&](beast::error_code outcome, std::size_t) { failure = outcome; };
    http::async_write(stream, request, record);
    run();
    if (failure == beast::error::timeout) return timed_out();
    // A refused body may break the writing while the answer is there already: reading tells.
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(most_answer_bytes);
    http::async_read(stream, buffer, parser, record);
    run();
    if (failure == beast::error::timeout) return timed_out();
    if (failure) {
      // With TLS 1.3 a server tells only now that it wants a certificate.
      return error{errc::io, 0,
                   "no answer from coppiced at " + client_.url() + ": " + failure.message() +
                       (tls_ ? "; if it wants a certificate, give --tls-cert and --tls-key" : "")};
    }
    auto answer = parser.release();
    return http_answer{answer.result_int(), std::move(answer.body())};
  }

  void run() {
    context_.restart();
    context_.run();
  }
  error timed_out() const {
    return {
        errc::deadline_exceeded, 0,
        "coppiced at " + client_.url() + " did not answer within " + std::to_string(client_.timeout_.count()) + " ms"};
  }

  const api_client& client_;
  boost::asio::io_context context_{1};
  plain_stream stream_{context_};
  std::shared_ptr<tls_context> tls_context_;
  std::optional<tls_stream> tls_;
};

std::optional<api_client::address> api_client::parse(std::string_view url) {
  if (url.starts_with("unix:")) {
    const std::string path(url.substr(5));
    if (path.empty() || path.size() > 107) return std::nullopt;  // unix(7): sun_path, with its NUL
    return address{false, path, "localhost", ""};
  }
  address found;
  std::string_view rest = url;
  found.secure = rest.starts_with("https://");
  if (found.secure || rest.starts_with("http://")) rest.remove_prefix(found.secure ? 8 : 7);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const auto colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find('/') != std::string_view::npos) return std::nullopt;
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  if (const int number = std::stoi(std::string(port)); number < 1 || number > 65535) return std::nullopt;
  found.authority = rest;
  found.host = host;
  found.port = port;
  return found;
}

result<api_client> api_client::create(std::string_view url, client_security security) {
  auto server = parse(url);
  if (!server) {
    return error{errc::invalid_argument, 0,
                 "bad server address '" + std::string(url.substr(0, 200)) +
                     "': use http://HOST:PORT, https://HOST:PORT or unix:/PATH"};
  }
  if (server->secure) {
    if (auto usable = client_tls(security.tls); !usable.ok()) return std::move(usable).error();
  }
  return api_client(*std::move(server), std::move(security));
}

std::string api_client::url() const {
  if (server_.port.empty()) return "unix:" + server_.authority;
  return (server_.secure ? "https://" : "http://") + server_.authority;
}

result<http_answer> api_client::send(std::string_view method, std::string_view target,
                                     const std::optional<std::string>& body) const {
  http::request<http::string_body> request;
  request.method_string(beast::string_view(method.data(), method.size()));
  request.target(beast::string_view(target.data(), target.size()));
  request.version(11);
  request.set(http::field::host, server_.port.empty() ? "localhost" : server_.authority);
  request.set(http::field::user_agent, "coppice");
  if (!security_.token.empty()) request.set(http::field::authorization, "Bearer " + security_.token);
  request.keep_alive(false);
  if (body) {
    request.set(http::field::content_type, "application/json");
    request.body() = *body;
  }
  if (body || method == "POST") request.prepare_payload();
  exchange attempt(*this);
  COPPICE_TRY(attempt.connect());
  return attempt.perform(request);
}

result<nlohmann::json> api_client::call(std::string_view method, std::string_view target,
                                        const std::optional<std::string>& body) const {
  auto answer = send(method, target, body);
  if (!answer.ok()) return std::move(answer).error();
  const bool success = answer->status >= 200 && answer->status < 300;
  if (success && answer->body.empty()) return nlohmann::json();
  auto parsed = nlohmann::json::parse(answer->body, nullptr, false);
  if (success) {
    if (!parsed.is_discarded()) return parsed;
    return error{errc::corrupt, 0, "the answer of " + url() + " to " + std::string(target) + " is no JSON"};
  }
  std::string message = "HTTP " + std::to_string(answer->status) + " from " + url() + std::string(target);
  std::string code;
  if (parsed.is_object()) {
    if (parsed.contains("error") && parsed["error"].is_string()) message = parsed["error"];
    if (parsed.contains("code") && parsed["code"].is_string()) code = parsed["code"];
  }
  return error{errc_of_answer(answer->status, code), 0, std::move(message)};
}

result<nlohmann::json> api_client::get(std::string_view target) const {
  return call("GET", target, std::nullopt);
}

result<nlohmann::json> api_client::post(std::string_view target, const nlohmann::json& body) const {
  return call("POST", target, body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

result<nlohmann::json> api_client::remove(std::string_view target) const {
  return call("DELETE", target, std::nullopt);
}

std::string path_segment(std::string_view text) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string escaped;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~';
    if (plain) {
      escaped += c;
    } else {
      escaped += '%';
      escaped += digits[byte >> 4];
      escaped += digits[byte & 15];
    }
  }
  return escaped;
}

}  // namespace coppice
