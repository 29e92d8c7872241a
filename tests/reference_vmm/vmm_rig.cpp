#include "tests/reference_vmm/vmm_rig.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

#include "base/file.hpp"
#include "journal_guest/journal_layout.hpp"
#include "vmm/memory_image.hpp"

namespace coppice::reference {

using std::chrono::milliseconds;

void PrintTo(const vmm_choice& choice, std::ostream* out) {
  *out << choice.name;
}

vmm_choice on_kvm() {
  return {"coppice_vmm", nullptr, {}, true};
}

vmm_choice on_threads() {
  return {"coppice_vmm_on_threads", nullptr, {"--no-kvm"}, false};
}

std::vector<vmm_choice> all_vmms() {
  return {on_kvm(), on_threads(), {"firecracker", "COPPICE_FIRECRACKER", {}, true}};
}

std::string name_of(const ::testing::TestParamInfo<vmm_choice>& info) {
  return info.param.name;
}

found_vmm find_vmm(const vmm_choice& choice) {
  if (choice.needs_kvm && ::access("/dev/kvm", R_OK | W_OK) != 0) return {{}, "no access to /dev/kvm"};
  if (choice.variable == nullptr) return {COPPICE_VMM, {}};
  const char* const path = std::getenv(choice.variable);
  if (path == nullptr) return {{}, std::string("set ") + choice.variable + " to the path of a Firecracker to run this"};
  return {path, {}};
}

test_vmm::test_vmm(vmm_host& host, const std::filesystem::path& dir, const std::string& name,
                   const guest_memory* memory)
    : socket_(dir / (name + ".sock")), log_(dir / (name + ".log")) {
  const int memory_fd = memory == nullptr ? -1 : memory->fd();
  auto started =
      host.start({name, socket_, log_, true, -1, memory_fd}, [exit = exit_](exit_status how) { exit->set_value(how); });
  if (!started) throw std::runtime_error("start " + name + ": " + started.error().message());
  vmm_ = std::move(*started);
  result<api_reply> first = error{};
  EXPECT_TRUE(eventually([&] { return (first = call(api_requests::describe())).ok(); })) << first.error().message();
}

result<api_reply> test_vmm::call(const api_request& request, milliseconds deadline) {
  auto answered = std::make_shared<std::promise<result<api_reply>>>();
  auto answer = answered->get_future();
  vmm_->api().call(request, deadline, [answered](result<api_reply> reply) { answered->set_value(std::move(reply)); });
  return answer.get();
}

void test_vmm::must(const api_request& request) {
  const auto reply = call(request);
  ASSERT_TRUE(reply) << request.method << " " << request.path << " " << request.body << ": " << reply.error().message()
                     << "\n"
                     << log();
}

void test_vmm::refuses(const api_request& request, const std::string& why) {
  const auto reply = call(request);
  ASSERT_FALSE(reply) << request.method << " " << request.path << " " << request.body << " is accepted";
  EXPECT_EQ(reply.error().code, errc::conflict) << reply.error().message();
  EXPECT_THAT(reply.error().message(), ::testing::HasSubstr(why)) << request.body;
}

std::string test_vmm::log() const {
  const auto text = read_text_file(log_);
  return text ? *text : std::string();
}

bool test_vmm::logs(const std::string& text) const {
  return eventually([&] { return log().find(text) != std::string::npos; });
}

exit_status test_vmm::exited() {
  if (ended_.wait_for(patience) != std::future_status::ready) return {-1, 0};
  return ended_.get();
}

bool test_vmm::runs() const {
  return ended_.wait_for(milliseconds(0)) != std::future_status::ready;
}

void vmm_test::use(const vmm_choice& choice, std::vector<std::string> more_arguments) {
  choice_ = choice;
  const auto found = find_vmm(choice);
  if (!found.why_not.empty()) GTEST_SKIP() << found.why_not;
  more_arguments.insert(more_arguments.begin(), choice.arguments.begin(), choice.arguments.end());
  auto host = create_vmm_host({found.binary, dir_.path(), more_arguments});
  ASSERT_TRUE(host) << host.error().message();
  host_ = std::move(*host);
}

std::unique_ptr<test_vmm> vmm_test::boot(const std::string& name, const boot_options& options) {
  auto vm = start(name);
  vm->must(api_requests::machine_config(options.vcpus, options.memory_mib, true));
  vm->must(api_requests::boot_source(COPPICE_JOURNAL, options.arguments));
  vm->must(api_requests::start());
  if (choice_.is_coppice_vmm()) {  // Firecracker's own log lines may stand in the middle of the guest's
    const std::string said = choice_.needs_kvm ? "journal: lanes=" + std::to_string(options.vcpus) : "journal runs on ";
    EXPECT_TRUE(vm->logs(said)) << vm->log();
  }
  return vm;
}

std::unique_ptr<test_vmm> vmm_test::boot_on_memfd(const std::string& name, const boot_options& options) {
  const snapshot base = paths(name + "-base");
  std::filesystem::remove(base.memory);  // a Diff merges into what is there
  {
    auto first = boot(name + "-boot", options);
    first->must(api_requests::pause());
    first->must(api_requests::snapshot_diff(base.vmstate, base.memory));  // sparse on every VMM, unlike Full
  }
  memory_ = load(base.memory, options.memory_mib * mib);
  auto vm = start_on(*memory_, name);
  vm->must(api_requests::load_snapshot(base.vmstate, memory_path, true, true, true));
  expect_advance(memory());
  return vm;
}

std::uint64_t vmm_test::steps(std::span<const std::byte> of) const {
  const auto reading = read_journal(of);
  return reading ? reading->steps : 0;
}

void vmm_test::expect_advance(std::span<const std::byte> of, std::uint64_t count) {
  const auto lane_step = [&](std::uint64_t lane) {
    return reinterpret_cast<const volatile journal::lane_header*>(of.data() + journal::header_address(lane))->step;
  };
  ASSERT_TRUE(eventually([&] { return read_journal(of).ok(); })) << "no journal guest runs here";
  const std::uint64_t lanes =
      reinterpret_cast<const volatile journal::lane_header*>(of.data() + journal::header_address(0))->lanes;
  ASSERT_LE(lanes, journal::max_lanes);
  for (std::uint64_t lane = 0; lane < lanes; ++lane) {
    const std::uint64_t before = lane_step(lane);
    EXPECT_TRUE(eventually([&] { return lane_step(lane) >= before + count; }))
        << "lane " << lane << " goes from " << before << " to " << lane_step(lane) << " only";
  }
  EXPECT_EQ(read_journal(of)->gaps, 0U);
}

journal_report vmm_test::expect_perfect(const std::filesystem::path& image, std::uint64_t lanes) {
  auto file = open_file(image, O_RDONLY);
  EXPECT_TRUE(file) << file.error().message();
  if (!file) return {};
  struct stat info {};
  EXPECT_EQ(::fstat(file->get(), &info), 0);
  auto checked = check_journal_image(file->get(), static_cast<std::uint64_t>(info.st_size));
  EXPECT_TRUE(checked) << checked.error().message();
  if (!checked) return {};
  EXPECT_TRUE(checked->is_journal);
  EXPECT_EQ(checked->lanes, lanes);
  EXPECT_EQ(checked->future, 0U);
  EXPECT_EQ(checked->lost, 0U);
  EXPECT_EQ(checked->torn, 0U);
  EXPECT_EQ(checked->gaps, 0U);
  return *checked;
}

std::shared_ptr<guest_memory> vmm_test::load(const std::filesystem::path& image, std::uint64_t size) {
  auto made = guest_memory::create("test", size);
  EXPECT_TRUE(made) << made.error().message();
  auto loaded = std::make_shared<guest_memory>(std::move(*made));
  auto file = open_file(image, O_RDONLY);
  EXPECT_TRUE(file) << file.error().message();
  const auto done = load_image(file->get(), *loaded);
  EXPECT_TRUE(done) << done.error().message();
  return loaded;
}

}  // namespace coppice::reference
