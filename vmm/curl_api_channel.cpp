#include "vmm/curl_api_channel.hpp"

#include <curl/curl.h>
#include <sys/epoll.h>

#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace coppice {
namespace {

constexpr std::size_t max_reply_bytes = 1 << 20;  // the API's largest answers are a few KiB

struct easy_deleter {
  void operator()(CURL* easy) const noexcept { curl_easy_cleanup(easy); }
};
struct multi_deleter {
  void operator()(CURLM* multi) const noexcept { curl_multi_cleanup(multi); }
};
struct slist_deleter {
  void operator()(curl_slist* list) const noexcept { curl_slist_free_all(list); }
};

curl_slist* make_headers() {
  // "Expect:" without a value removes the header: a VMM never answers 100-continue, and curl would wait a second.
  auto* list = curl_slist_append(nullptr, "Content-Type: application/json");
  list = curl_slist_append(list, "Accept: application/json");
  return curl_slist_append(list, "Expect:");
}

// The fault_message of an error reply, or the body as it is.
std::string fault_of(const std::string& body) {
  const auto parsed = nlohmann::json::parse(body, nullptr, false);
  if (parsed.is_object()) {
    for (const auto* key : {"fault_message", "error"}) {  // the second is its HTTP layer's (micro_http)
      const auto fault = parsed.find(key);
      if (fault != parsed.end() && fault->is_string()) return fault->get<std::string>();
    }
  }
  return body.empty() ? "refused without a reason" : body;
}

std::string name_of(const api_request& request) {
  return request.method + " " + request.path;
}

}  // namespace

// All members are used on the loop's thread only (the constructor excepted, which runs before anyone else knows it).
class curl_api_channel::connection : public std::enable_shared_from_this<connection> {
 public:
  connection(std::shared_ptr<event_loop> loop, std::filesystem::path socket);

  void add(api_request request, event_loop::clock::time_point deadline, completion done);
  void close();

 private:
  struct pending {
    std::uint64_t id = 0;
    api_request request;
    completion done;
    event_loop::timer_id timer = 0;
  };
  using outcome = result<api_reply>;

  void pump();
  void begin();
  std::optional<outcome> take_outcome();
  outcome outcome_of(CURLcode code);
  void expire(std::uint64_t id);
  void forget_timer();
  error given_up(const api_request& request) const {
    return {errc::cancelled, 0, name_of(request) + " at " + socket_ + ": given up"};
  }

  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept;
  static int on_timer(CURLM*, long milliseconds, void* self) noexcept;
  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) noexcept;

  std::shared_ptr<event_loop> loop_;
  std::string socket_;
  std::unique_ptr<curl_slist, slist_deleter> headers_;
  std::unique_ptr<CURL, easy_deleter> easy_;
  std::unique_ptr<CURLM, multi_deleter> multi_;  // one a channel: no connection is ever shared between VMs

  std::deque<pending> queue_;  // the first one is being served while running_
  bool running_ = false;
  bool closed_ = false;
  bool kick_ = false;  // curl wants to be called at once
  event_loop::timer_id curl_timer_ = 0;
  std::uint64_t next_id_ = 1;
  std::string reply_;
};

curl_api_channel::connection::connection(std::shared_ptr<event_loop> loop, std::filesystem::path socket)
    : loop_(std::move(loop)), socket_(socket.string()), headers_(make_headers()) {
  static const auto initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  static_cast<void>(initialised);
  easy_.reset(curl_easy_init());
  multi_.reset(curl_multi_init());
  curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETFUNCTION, &on_socket);
  curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_.get(), CURLMOPT_TIMERFUNCTION, &on_timer);
  curl_multi_setopt(multi_.get(), CURLMOPT_TIMERDATA, this);
  auto* easy = easy_.get();
  curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, socket_.c_str());
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // whatever http_proxy says
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.get());
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
}

int curl_api_channel::connection::on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept {
  auto& me = *static_cast<connection*>(self);
  if (what == CURL_POLL_REMOVE) {
    me.loop_->unwatch(fd);
    return 0;
  }
  std::uint32_t events = 0;
  if ((what & CURL_POLL_IN) != 0) events |= EPOLLIN;
  if ((what & CURL_POLL_OUT) != 0) events |= EPOLLOUT;
  const auto watched = me.loop_->watch(fd, events, [weak = me.weak_from_this(), fd](std::uint32_t ready) {
    const auto alive = weak.lock();
    if (!alive || alive->closed_) return;
    int actions = 0;
    if ((ready & (EPOLLIN | EPOLLHUP)) != 0) actions |= CURL_CSELECT_IN;
    if ((ready & EPOLLOUT) != 0) actions |= CURL_CSELECT_OUT;
    if ((ready & EPOLLERR) != 0) actions |= CURL_CSELECT_ERR;
    int running = 0;
    curl_multi_socket_action(alive->multi_.get(), fd, actions, &running);
    alive->pump();
  });
  return watched ? 0 : -1;
}

int curl_api_channel::connection::on_timer(CURLM*, long milliseconds, void* self) noexcept {
  auto& me = *static_cast<connection*>(self);
  me.forget_timer();
  me.kick_ = milliseconds == 0;  // called back by pump() without a detour through the timer: saves a millisecond
  if (milliseconds <= 0) return 0;
  const auto when = event_loop::clock::now() + std::chrono::milliseconds(milliseconds);
  me.curl_timer_ = me.loop_->add_timer(when, [weak = me.weak_from_this()] {
    const auto alive = weak.lock();
    if (!alive || alive->closed_) return;
    alive->curl_timer_ = 0;
    alive->kick_ = true;
    alive->pump();
  });
  return 0;
}

std::size_t curl_api_channel::connection::on_body(char* data, std::size_t, std::size_t size, void* self) noexcept {
  auto& reply = static_cast<connection*>(self)->reply_;
  if (reply.size() + size > max_reply_bytes) return 0;  // curl then fails with CURLE_WRITE_ERROR
  reply.append(data, size);
  return size;
}

void curl_api_channel::connection::forget_timer() {
  if (curl_timer_ != 0) loop_->cancel_timer(std::exchange(curl_timer_, 0));
}

void curl_api_channel::connection::add(api_request request, event_loop::clock::time_point deadline, completion done) {
  if (closed_) return done(given_up(request));  // posted before the loop's own thread destroyed the channel
  const auto id = next_id_++;
  const auto timer = loop_->add_timer(deadline, [weak = weak_from_this(), id] {
    if (const auto alive = weak.lock()) alive->expire(id);
  });
  queue_.push_back({id, std::move(request), std::move(done), timer});
  pump();
}

// Serves the queue until it has to wait. Completions run here, outside of curl.
void curl_api_channel::connection::pump() {
  while (!closed_) {
    if (!running_) {
      if (queue_.empty()) return;
      begin();
    }
    while (std::exchange(kick_, false)) {
      int running = 0;
      curl_multi_socket_action(multi_.get(), CURL_SOCKET_TIMEOUT, 0, &running);
    }
    auto finished = take_outcome();
    if (!finished) return;
    auto call = std::move(queue_.front());
    queue_.pop_front();
    loop_->cancel_timer(call.timer);
    call.done(std::move(*finished));
  }
}

void curl_api_channel::connection::begin() {
  const auto& request = queue_.front().request;
  auto* easy = easy_.get();
  const auto url = "http://localhost" + request.path;
  reply_.clear();
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  if (request.method == "GET") {
    curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, nullptr);
  } else {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
    curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request.body.c_str());
  }
  running_ = true;
  kick_ = true;
  curl_multi_add_handle(multi_.get(), easy);
}

std::optional<result<api_reply>> curl_api_channel::connection::take_outcome() {
  int left = 0;
  while (const auto* message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const auto code = message->data.result;  // read before the handle is removed: that frees the message
    auto finished = outcome_of(code);
    curl_multi_remove_handle(multi_.get(), easy_.get());
    running_ = false;
    return finished;
  }
  return std::nullopt;
}

result<api_reply> curl_api_channel::connection::outcome_of(CURLcode code) {
  const auto name = name_of(queue_.front().request);
  if (code != CURLE_OK) {
    long os_error = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_OS_ERRNO, &os_error);
    return error{errc::unavailable, static_cast<int>(os_error),
                 name + " at " + socket_ + ": " + curl_easy_strerror(code)};
  }
  long status = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status >= 200 && status < 300) return api_reply{static_cast<int>(status), std::move(reply_)};
  const auto what = status == 400 ? ": " : ": status " + std::to_string(status) + ": ";
  // 503 is micro_http's "too many open connections".
  return error{status == 503 ? errc::unavailable : errc::conflict, 0, name + what + fault_of(reply_)};
}

void curl_api_channel::connection::expire(std::uint64_t id) {
  for (auto call = queue_.begin(); call != queue_.end(); ++call) {
    if (call->id != id) continue;
    const bool was_running = running_ && call == queue_.begin();
    if (was_running) {
      curl_multi_remove_handle(multi_.get(), easy_.get());  // in mid-transfer: curl closes the connection
      running_ = false;
    }
    auto expired = std::move(*call);
    queue_.erase(call);
    expired.done(error{errc::deadline_exceeded, 0,
                       name_of(expired.request) + " at " + socket_ +
                           (was_running ? ": no answer in time" : ": still waiting behind earlier calls")});
    return pump();
  }
}

void curl_api_channel::connection::close() {
  closed_ = true;
  if (running_) curl_multi_remove_handle(multi_.get(), easy_.get());
  multi_.reset();  // closes the connection; its socket is unwatched on the way
  easy_.reset();
  forget_timer();
  auto calls = std::exchange(queue_, {});
  for (auto& call : calls) {
    loop_->cancel_timer(call.timer);
    call.done(given_up(call.request));
  }
}

curl_api_channel::curl_api_channel(std::shared_ptr<event_loop> loop, std::filesystem::path socket)
    : loop_(loop), connection_(std::make_shared<connection>(std::move(loop), std::move(socket))) {}

curl_api_channel::~curl_api_channel() {
  loop_->run_sync([this] { connection_->close(); });
}

void curl_api_channel::call(api_request request, std::chrono::milliseconds deadline, completion done) {
  loop_->post([connection = connection_, request = std::move(request), when = event_loop::clock::now() + deadline,
               done = std::move(done)]() mutable { connection->add(std::move(request), when, std::move(done)); });
}

}  // namespace coppice
