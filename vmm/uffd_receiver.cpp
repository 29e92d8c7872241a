#include "vmm/uffd_receiver.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "vmm/unix_socket.hpp"

namespace coppice {
namespace {

constexpr std::size_t max_message_bytes = 64 * kib;  // one region is some 120 bytes
constexpr std::size_t max_fds = 16;                  // room to see that there were too many, and to close them

struct message {
  std::string text;
  std::vector<unique_fd> fds;
  bool truncated = false;
};

result<message> receive_message(int socket) {
  message received;
  received.text.resize(max_message_bytes);
  iovec part{received.text.data(), received.text.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * max_fds)> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const auto got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0) return errno_error("receive uffd handover");
  received.text.resize(static_cast<std::size_t>(got));
  received.truncated = (header.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
  for (auto* part_of = CMSG_FIRSTHDR(&header); part_of != nullptr; part_of = CMSG_NXTHDR(&header, part_of)) {
    if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) continue;
    const auto count = (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part_of) + i * sizeof fd, sizeof fd);  // the payload may be unaligned
      received.fds.emplace_back(fd);
    }
  }
  return received;
}

bool is_userfaultfd(int fd) {
  std::error_code failure;
  const auto target = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), failure);
  return !failure && target.native().find("[userfaultfd]") != std::string::npos;
}

error bad(const std::string& what) {
  return {errc::corrupt, 0, "uffd handover: " + what};
}

result<uffd_handover> to_handover(message received) {
  if (received.text.empty() && received.fds.empty()) return bad("the peer closed without sending anything");
  if (received.truncated) return bad("the message was cut off: too many descriptors");
  if (received.fds.empty()) return bad("no descriptor came with the message");
  if (received.fds.size() > 1) return bad(std::to_string(received.fds.size()) + " descriptors came instead of one");
  if (!is_userfaultfd(received.fds.front().get())) return bad("the descriptor is no userfaultfd");
  auto regions = parse_uffd_regions(received.text);
  if (!regions) return std::move(regions).error();
  return uffd_handover{std::move(received.fds.front()), std::move(*regions)};
}

result<std::uint64_t> field(const nlohmann::json& region, const char* name) {
  const auto found = region.find(name);
  if (found == region.end() || !found->is_number_unsigned()) return bad("no number '" + std::string(name) + "'");
  return found->get<std::uint64_t>();
}

result<memory_region> parse_region(const nlohmann::json& region) {
  if (!region.is_object()) return bad("a region is no object");
  auto address = field(region, "base_host_virt_addr");
  if (!address) return std::move(address).error();
  auto size = field(region, "size");
  if (!size) return std::move(size).error();
  auto offset = field(region, "offset");
  if (!offset) return std::move(offset).error();
  auto page = field(region, region.contains("page_size") ? "page_size" : "page_size_kib");
  if (!page) return std::move(page).error();
  if (*page != page_size)
    return bad("pages of " + std::to_string(*page) + " bytes: only guests with 4096 can be branched");
  if (*size == 0 || *size % page_size != 0 || *address % page_size != 0 || *offset % page_size != 0)
    return bad("a region is empty or not made of whole pages");
  if (*address + *size < *address || *offset + *size < *offset) return bad("a region wraps around");
  return memory_region{*address, *size, *offset};
}

}  // namespace

result<std::vector<memory_region>> parse_uffd_regions(std::string_view text) {
  const auto parsed = nlohmann::json::parse(text, nullptr, false);
  if (!parsed.is_array()) return bad("the message is no JSON array");
  if (parsed.empty()) return bad("no memory regions");
  std::vector<memory_region> regions;
  for (const auto& entry : parsed) {
    auto region = parse_region(entry);
    if (!region) return std::move(region).error();
    regions.push_back(*region);
  }
  return regions;
}

// The handshakes that wait. Loop's thread only.
class uffd_receiver::registry {
 public:
  void insert(std::shared_ptr<handshake> one);
  void erase(const std::shared_ptr<handshake>& one) { waiting_.erase(one); }
  void cancel_all();

 private:
  std::set<std::shared_ptr<handshake>> waiting_;
};

// One expected handover: listens, then reads one message from the first who connects. Loop's thread only.
class uffd_receiver::handshake : public std::enable_shared_from_this<handshake> {
 public:
  handshake(std::shared_ptr<event_loop> loop, std::shared_ptr<registry> known, std::filesystem::path socket,
            unique_fd listener, callback done)
      : loop_(std::move(loop)),
        registry_(std::move(known)),
        socket_(std::move(socket)),
        listener_(std::move(listener)),
        done_(std::move(done)) {}

  void begin(event_loop::clock::time_point deadline) {
    timer_ = loop_->add_timer(deadline, [self = shared_from_this()] {
      self->finish(error{errc::deadline_exceeded, 0, "uffd handover at " + self->socket_.string() + ": none came"});
    });
    await(listener_.get(), &handshake::accept);
  }

  void finish(result<uffd_handover> outcome) {
    if (!done_) return;
    loop_->cancel_timer(timer_);
    close(connection_);
    if (listener_) {
      close(listener_);
      std::error_code ignored;
      std::filesystem::remove(socket_, ignored);
    }
    const auto self = shared_from_this();
    registry_->erase(self);
    std::exchange(done_, nullptr)(std::move(outcome));
  }

 private:
  void await(int fd, void (handshake::*next)()) {
    const auto watched =
        loop_->watch(fd, EPOLLIN, [self = shared_from_this(), next](std::uint32_t) { (self.get()->*next)(); });
    if (!watched) finish(watched.error());
  }

  void accept() {
    connection_ = unique_fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!connection_) {
      if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
      return finish(errno_error("accept at " + socket_.string()));
    }
    loop_->unwatch(listener_.get());
    await(connection_.get(), &handshake::read);
  }

  void read() {
    auto received = receive_message(connection_.get());
    if (!received) {
      if (received.error().sys_errno == EAGAIN || received.error().sys_errno == EINTR) return;
      return finish(std::move(received).error());
    }
    auto handover = to_handover(std::move(*received));  // a statement of its own: what is refused is closed at its end
    finish(std::move(handover));
  }

  void close(unique_fd& fd) {
    if (!fd) return;
    loop_->unwatch(fd.get());
    fd.reset();
  }

  std::shared_ptr<event_loop> loop_;
  std::shared_ptr<registry> registry_;
  std::filesystem::path socket_;
  unique_fd listener_;
  unique_fd connection_;
  event_loop::timer_id timer_ = 0;
  callback done_;
};

void uffd_receiver::registry::insert(std::shared_ptr<handshake> one) {
  waiting_.insert(std::move(one));
}

void uffd_receiver::registry::cancel_all() {
  while (!waiting_.empty()) {
    const auto one = *waiting_.begin();
    one->finish(error{errc::cancelled, 0, "uffd handover: the host is stopping"});
  }
}

uffd_receiver::uffd_receiver(std::shared_ptr<event_loop> loop)
    : loop_(std::move(loop)), registry_(std::make_shared<registry>()) {}

uffd_receiver::~uffd_receiver() {
  loop_->run_sync([this] { registry_->cancel_all(); });
}

void uffd_receiver::receive(const std::filesystem::path& socket, std::chrono::milliseconds deadline, callback done) {
  auto listener = listen_unix(socket);
  if (!listener) {
    // Said on the loop's thread like every other outcome.
    loop_->post([done = std::move(done), failure = listener.error()] { done(failure); });
    return;
  }
  const auto until = event_loop::clock::now() + deadline;
  auto one = std::make_shared<handshake>(loop_, registry_, socket, std::move(*listener), std::move(done));
  loop_->post([one = std::move(one), known = registry_, until] {
    known->insert(one);
    one->begin(until);
  });
}

}  // namespace coppice
