#include "client/client.hpp"

#include <curl/curl.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <memory>
#include <system_error>

#include "base/http_status.hpp"
#include "base/units.hpp"

namespace coppice {

struct release_client_part {
  void operator()(CURL* handle) const { ::curl_easy_cleanup(handle); }
  void operator()(CURLU* url) const { ::curl_url_cleanup(url); }
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
  void operator()(char* text) const { ::curl_free(text); }
  void operator()(SSL_CTX* context) const { ::SSL_CTX_free(context); }
};
template <class T>
using owned = std::unique_ptr<T, release_client_part>;

namespace {

constexpr std::size_t most_answer_bytes = 256 * mib;
constexpr std::size_t longest_socket_path = 107;  // unix(7): sun_path, without its NUL

bool is_success(unsigned status) {
  return status >= 200 && status < 300;
}

std::string part_of(const owned<CURLU>& url, CURLUPart part) {
  char* text = nullptr;
  if (::curl_url_get(url.get(), part, &text, 0) != CURLUE_OK) return {};
  return owned<char>(text).get();
}

// "http://HOST:PORT", "https://HOST:PORT" or "unix:/PATH"; nothing if `url` is none of these.
std::optional<std::string> server_of(std::string_view url) {
  if (url.starts_with("unix:")) {
    const auto length = url.size() - 5;
    return length > 0 && length <= longest_socket_path ? std::optional(std::string(url)) : std::nullopt;
  }
  const auto whole = (url.find("://") == std::string_view::npos ? "http://" : "") + std::string(url);
  const owned<CURLU> parsed(::curl_url());
  if (::curl_url_set(parsed.get(), CURLUPART_URL, whole.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK) return std::nullopt;
  const auto scheme = part_of(parsed, CURLUPART_SCHEME);
  const auto port = part_of(parsed, CURLUPART_PORT);
  auto server = part_of(parsed, CURLUPART_URL);
  if ((scheme != "http" && scheme != "https") || port.empty() || port == "0") return std::nullopt;
  if (server.find_first_of("/?#", scheme.size() + 3) != server.size() - 1) return std::nullopt;
  server.pop_back();
  return server;
}

}  // namespace

// One exchange on a connection of its own.
class api_client::exchange {
  using clock = std::chrono::steady_clock;

 public:
  exchange(const api_client& client, std::string_view method, std::string_view target) : client_(client) {
    static const CURLcode ready = ::curl_global_init(CURL_GLOBAL_DEFAULT);  // once, and no other thread meanwhile
    if (ready == CURLE_OK) handle_.reset(::curl_easy_init());
    if (!handle_) return;
    const bool is_unix = client.url_.starts_with("unix:");
    set(CURLOPT_URL, is_unix ? "http://localhost" : client.url_.c_str());
    if (is_unix) set(CURLOPT_UNIX_SOCKET_PATH, client.url_.c_str() + 5);
    set(CURLOPT_CUSTOMREQUEST, std::string(method).c_str());
    set(CURLOPT_REQUEST_TARGET, std::string(target).c_str());  // as it is
    set(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
    set(CURLOPT_PROXY, "");  // none of the environment
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_USERAGENT, "coppice");
    set(CURLOPT_ERRORBUFFER, why_);
    set(CURLOPT_WRITEFUNCTION, &exchange::receive);
    set(CURLOPT_WRITEDATA, this);
    add_header("Connection: close");
    if (!client.security_.token.empty()) add_header("Authorization: Bearer " + client.security_.token);
    use_tls(client.security_.tls);
  }

  // `body` outlives this object.
  void send_body(const std::string& body) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    set(CURLOPT_POSTFIELDS, body.c_str());
    add_header(body.empty() ? "Content-Type:" : "Content-Type: application/json");  // without a value: none
  }

  // Successful answers go to `take`, which outlives this object.
  void stream_to(const take_bytes& take, std::string_view last_event_id) {
    take_ = &take;
    if (!last_event_id.empty()) add_header("Last-Event-ID: " + std::string(last_event_id));
  }

  result<http_answer> perform() {
    if (!handle_) return error{errc::internal, 0, "libcurl can't be used"};
    // In libcurl, 0 would be "for ever".
    const long timeout = std::max(1L, static_cast<long>(client_.timeout_.count()));
    set(take_ == nullptr ? CURLOPT_TIMEOUT_MS : CURLOPT_CONNECTTIMEOUT_MS, timeout);
    if (take_ != nullptr) {
      set(CURLOPT_NOPROGRESS, 0L);
      set(CURLOPT_XFERINFOFUNCTION, &exchange::watch);
      set(CURLOPT_XFERINFODATA, this);
    }
    set(CURLOPT_HTTPHEADER, headers_.get());
    const CURLcode outcome = ::curl_easy_perform(handle_.get());
    if (outcome != CURLE_OK && !enough_) return failure(outcome);
    answer_.status = status();
    return std::move(answer_);
  }

 private:
  template <class T>
  void set(CURLoption option, T value) {
    ::curl_easy_setopt(handle_.get(), option, value);
  }
  void add_header(const std::string& line) { headers_.reset(::curl_slist_append(headers_.release(), line.c_str())); }

  void use_tls(const tls_files& files) {
    set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});  // or later
    if (!files.ca.empty()) {
      set(CURLOPT_CAINFO, files.ca.c_str());
      set(CURLOPT_CAPATH, static_cast<char*>(nullptr));  // the system's are not trusted beside it
    }
    if (files.certificate.empty()) return;
    set(CURLOPT_SSLCERT, files.certificate.c_str());
    set(CURLOPT_SSLKEY, files.key.c_str());
  }

  unsigned status() const {
    long code = 0;
    ::curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &code);
    return static_cast<unsigned>(code);
  }

  // libcurl's callback: what it returns other than `count` ends the exchange.
  static std::size_t receive(char* bytes, std::size_t, std::size_t count, void* self) {
    auto& me = *static_cast<exchange*>(self);
    if (me.take_ != nullptr && is_success(me.status())) {
      me.enough_ = !(*me.take_)({bytes, count});
      me.heard_ = clock::now();  // what took `take` long is not the server's silence
      return me.enough_ ? 0 : count;
    }
    if (me.answer_.body.size() + count > most_answer_bytes) return 0;
    me.answer_.body.append(bytes, count);
    return count;
  }

  // libcurl's callback, each second at least: what it returns other than 0 ends the exchange.
  static int watch(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const auto& me = *static_cast<exchange*>(self);
    return clock::now() - me.heard_ > me.client_.timeout_ ? 1 : 0;
  }

  error failure(CURLcode code) const {
    const std::string server = "coppiced at " + client_.url_;
    std::string why = why_[0] != '\0' ? why_ : ::curl_easy_strerror(code);
    long reason = 0;
    ::curl_easy_getinfo(handle_.get(), CURLINFO_OS_ERRNO, &reason);
    switch (code) {
      case CURLE_OPERATION_TIMEDOUT:
      case CURLE_ABORTED_BY_CALLBACK:
        return {errc::deadline_exceeded, 0,
                server + (take_ == nullptr ? " did not answer within " : " was silent for ") +
                    std::to_string(client_.timeout_.count()) + " ms"};
      case CURLE_COULDNT_RESOLVE_HOST:
      case CURLE_COULDNT_CONNECT:
        if (reason != 0) why = std::generic_category().message(static_cast<int>(reason));
        return {errc::unavailable, 0,
                "cannot connect to " + server + ": " + why +
                    "; is it running? (start it with coppiced --root DIR, or name another with --server)"};
      case CURLE_SSL_CONNECT_ERROR:
      case CURLE_PEER_FAILED_VERIFICATION:
      case CURLE_SSL_CACERT_BADFILE:
      case CURLE_SSL_CERTPROBLEM:
        return {errc::unavailable, 0,
                "no TLS with " + server + ": " + why +
                    "; see --tls-ca, and --tls-cert and --tls-key if it wants a certificate"};
      default:
        // With TLS 1.3 a server tells only now that it wants a certificate.
        return {errc::io, 0,
                "no answer from " + server + ": " + why +
                    (client_.url_.starts_with("https:") ? "; if it wants a certificate, give --tls-cert and --tls-key"
                                                        : "")};
    }
  }

  const api_client& client_;
  owned<CURL> handle_;
  owned<curl_slist> headers_;
  const take_bytes* take_ = nullptr;
  clock::time_point heard_ = clock::now();
  bool enough_ = false;  // take_ said so
  http_answer answer_;
  char why_[CURL_ERROR_SIZE] = "";
};

result<api_client> api_client::create(std::string_view url, client_security security) {
  auto server = server_of(url);
  if (!server) {
    return error{errc::invalid_argument, 0,
                 "bad server address '" + std::string(url.substr(0, 200)) +
                     "': use http://HOST:PORT, https://HOST:PORT or unix:/PATH"};
  }
  if (server->starts_with("https:")) {  // now, and not only where somebody listens
    const owned<SSL_CTX> trial(::SSL_CTX_new(::TLS_client_method()));
    COPPICE_TRY(load_tls_files(trial.get(), security.tls));
  }
  return api_client(*std::move(server), std::move(security));
}

result<http_answer> api_client::send(std::string_view method, std::string_view target,
                                     const std::optional<std::string>& body) const {
  const std::string none;
  exchange attempt(*this, method, target);
  if (body || method == "POST") attempt.send_body(body ? *body : none);
  return attempt.perform();
}

result<void> api_client::stream(std::string_view target, const take_bytes& take, std::string_view last_event_id) const {
  exchange attempt(*this, "GET", target);
  attempt.stream_to(take, last_event_id);
  const auto answer = attempt.perform();
  if (!answer.ok()) return answer.error();
  if (!is_success(answer->status)) return refusal(target, *answer);
  return {};
}

result<nlohmann::json> api_client::call(std::string_view method, std::string_view target,
                                        const std::optional<std::string>& body) const {
  const auto answer = send(method, target, body);
  if (!answer.ok()) return answer.error();
  if (!is_success(answer->status)) return refusal(target, *answer);
  if (answer->body.empty()) return nlohmann::json();
  auto parsed = nlohmann::json::parse(answer->body, nullptr, false);
  if (!parsed.is_discarded()) return parsed;
  return error{errc::corrupt, 0, "the answer of " + url() + " to " + std::string(target) + " is no JSON"};
}

error api_client::refusal(std::string_view target, const http_answer& answer) const {
  std::string message = "HTTP " + std::to_string(answer.status) + " from " + url() + std::string(target);
  std::string code;
  const auto said = nlohmann::json::parse(answer.body, nullptr, false);
  if (said.is_object()) {
    if (said.contains("error") && said["error"].is_string()) message = said["error"];
    if (said.contains("code") && said["code"].is_string()) code = said["code"];
  }
  return {errc_of_answer(answer.status, code), 0, std::move(message)};
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
  // Of an empty text, libcurl would take strlen().
  if (text.empty()) return {};
  const owned<char> escaped(::curl_easy_escape(nullptr, text.data(), static_cast<int>(text.size())));
  return escaped ? escaped.get() : std::string();
}

}  // namespace coppice
