// Restores whose pages come on demand, with a handler of the test's own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <atomic>
#include <thread>

#include "base/file.hpp"
#include "tests/reference_vmm/vmm_rig.hpp"

namespace coppice::reference {
namespace {

// Serves missing pages from an image, a chunk at a time, from the handover on.
class page_server {
 public:
  page_server(vmm_host& host, const std::filesystem::path& socket, mapping image)
      : image_(std::move(image)), stop_(::eventfd(0, EFD_CLOEXEC)) {
    host.receive_uffd(socket, patience, [this](result<uffd_handover> got) {
      if (got) {
        handover_ = std::move(*got);
        thread_ = std::thread([this] { serve(); });
      }
      received_.set_value(static_cast<bool>(handover_.uffd));
    });
  }
  ~page_server() {
    if (!received()) return;
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }
  bool received() {
    if (!known_) known_ = received_.get_future().get();
    return *known_;
  }
  std::uint64_t faults() const { return faults_; }
  // The VM's memory as it is, read through its own address space, missing pages being served.
  std::vector<std::byte> read(pid_t pid, std::uint64_t offset, std::size_t size) const {
    std::vector<std::byte> bytes(size);
    iovec to{bytes.data(), size};
    // SAFETY: an address of the other process, as its handover gave it.
    iovec from{reinterpret_cast<void*>(handover_.regions.at(0).host_address + offset), size};
    EXPECT_EQ(::process_vm_readv(pid, &to, 1, &from, 1, 0), static_cast<ssize_t>(size));
    return bytes;
  }

 private:
  static constexpr std::uint64_t chunk = 256 * kib;

  void serve() {
    for (;;) {
      pollfd fds[2] = {{handover_.uffd.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      ::poll(fds, 2, -1);
      if (fds[1].revents != 0 || (fds[0].revents & (POLLERR | POLLHUP)) != 0) return;
      uffd_msg message{};
      if (::read(handover_.uffd.get(), &message, sizeof message) != sizeof message) continue;
      if (message.event != UFFD_EVENT_PAGEFAULT) continue;
      ++faults_;
      for (const memory_region& region : handover_.regions) {
        const std::uint64_t inside = (message.arg.pagefault.address - region.host_address) / chunk * chunk;
        if (message.arg.pagefault.address < region.host_address || inside >= region.size) continue;
        uffdio_copy copy{};
        copy.dst = region.host_address + inside;
        copy.src = reinterpret_cast<std::uint64_t>(image_.data() + region.file_offset + inside);
        copy.len = std::min(chunk, region.size - inside);
        if (::ioctl(handover_.uffd.get(), UFFDIO_COPY, &copy) == 0) continue;
        uffdio_range all{copy.dst, copy.len};  // another vCPU's fault in the same chunk: it is there by now
        ::ioctl(handover_.uffd.get(), UFFDIO_WAKE, &all);
      }
    }
  }

  mapping image_;
  unique_fd stop_;
  uffd_handover handover_;
  std::atomic<std::uint64_t> faults_{0};
  std::promise<bool> received_;
  std::optional<bool> known_;
  std::thread thread_;
};

struct uffd_backend_test : each_vmm_test {};

TEST_P(uffd_backend_test, a_child_whose_pages_come_on_demand_goes_on_without_a_gap) {
  auto parent = boot_on_memfd("parent");
  parent->must(api_requests::pause());
  const snapshot taken = paths("full");
  parent->must(api_requests::snapshot_full(taken.vmstate, taken.memory));
  const std::uint64_t before = expect_perfect(taken.memory, 2).steps;

  auto file = open_file(taken.memory, O_RDONLY);
  auto image = mapping::shared(file->get(), 64 * mib, PROT_READ);
  ASSERT_TRUE(image);
  page_server server(*host_, dir_.path() / "pages.sock", std::move(*image));
  auto child = start("child");
  child->must({"PUT", "/snapshot/load",
               R"({"snapshot_path":")" + taken.vmstate.string() +
                   R"(","mem_backend":{"backend_type":"Uffd","backend_path":")" +
                   (dir_.path() / "pages.sock").string() + R"("},"resume_vm":true})"});
  ASSERT_TRUE(server.received());
  const auto reading = [&] {
    return *read_journal(server.read(child->pid(), 0, journal::header_address(journal::max_lanes)));
  };
  EXPECT_TRUE(eventually([&] { return reading().steps >= before + 2000; }));
  EXPECT_EQ(reading().gaps, 0U);
  EXPECT_GT(server.faults(), 0U);
  child->must(api_requests::pause());
  const snapshot later = paths("later");
  child->must(api_requests::snapshot_full(later.vmstate, later.memory));
  EXPECT_GE(expect_perfect(later.memory, 2).steps, before + 2000);
}

INSTANTIATE_TEST_SUITE_P(on, uffd_backend_test, ::testing::ValuesIn(all_vmms()), name_of);

}  // namespace
}  // namespace coppice::reference
