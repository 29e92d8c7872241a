#include "api/client.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <functional>

#include "api/http_status.hpp"
#include "base/units.hpp"

namespace coppice {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = boost::asio::ip::tcp;

namespace {

constexpr std::uint64_t most_answer_bytes = 256 * mib;

// One exchange on a connection of its own: each step starts an asynchronous operation and runs it to its end.
class exchange {
 public:
  exchange(std::string url, std::chrono::milliseconds timeout) : url_(std::move(url)), timeout_(timeout) {
    stream_.expires_after(timeout);
  }

  result<void> connect(const std::string& host, const std::string& port) {
    tcp::resolver resolver(context_);
    beast::error_code failure;
    const auto endpoints = resolver.resolve(host, port, failure);
    if (failure) return error{errc::unavailable, 0, "cannot resolve " + host + ": " + failure.message()};
    stream_.async_connect(endpoints, [&](beast::error_code outcome, const tcp::endpoint&) { failure = outcome; });
    run();
    if (failure == beast::error::timeout) return timed_out();
    if (failure) {
      return error{errc::unavailable, 0,
                   "cannot connect to coppiced at " + url_ + ": " + failure.message() +
                       "; is it running? (start it with coppiced --root DIR, or name another with --server)"};
    }
    return {};
  }

  result<http_answer> perform(const http::request<http::string_body>& request) {
    beast::error_code failure;
    const auto record = [&](beast::error_code outcome, std::size_t) { failure = outcome; };
    http::async_write(stream_, request, record);
    run();
    if (failure == beast::error::timeout) return timed_out();
    // A refused body may break the writing while the answer is there already: reading tells.
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(most_answer_bytes);
    http::async_read(stream_, buffer, parser, record);
    run();
    if (failure == beast::error::timeout) return timed_out();
    if (failure) return error{errc::io, 0, "no answer from coppiced at " + url_ + ": " + failure.message()};
    auto answer = parser.release();
    return http_answer{answer.result_int(), std::move(answer.body())};
  }

 private:
  void run() {
    context_.restart();
    context_.run();
  }
  error timed_out() const {
    return {errc::deadline_exceeded, 0,
            "coppiced at " + url_ + " did not answer within " + std::to_string(timeout_.count()) + " ms"};
  }

  std::string url_;
  std::chrono::milliseconds timeout_;
  boost::asio::io_context context_{1};
  beast::tcp_stream stream_{context_};
};

}  // namespace

result<api_client> api_client::create(std::string_view url) {
  const error wrong{errc::invalid_argument, 0,
                    "bad server address '" + std::string(url.substr(0, 200)) + "': use http://HOST:PORT"};
  std::string_view rest = url;
  if (rest.starts_with("http://")) rest.remove_prefix(7);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const auto colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return wrong;
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find('/') != std::string_view::npos) return wrong;
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string_view::npos) return wrong;
  if (const int number = std::stoi(std::string(port)); number < 1 || number > 65535) return wrong;
  return api_client(std::string(rest), std::string(host), std::string(port));
}

result<http_answer> api_client::send(std::string_view method, std::string_view target,
                                     const std::optional<std::string>& body) const {
  http::request<http::string_body> request;
  request.method_string(beast::string_view(method.data(), method.size()));
  request.target(beast::string_view(target.data(), target.size()));
  request.version(11);
  request.set(http::field::host, authority_);
  request.set(http::field::user_agent, "coppice");
  request.keep_alive(false);
  if (body) {
    request.set(http::field::content_type, "application/json");
    request.body() = *body;
  }
  if (body || method == "POST") request.prepare_payload();
  exchange attempt(url(), timeout_);
  COPPICE_TRY(attempt.connect(host_, port_));
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
