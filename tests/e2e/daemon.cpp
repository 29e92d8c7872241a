#include "tests/e2e/daemon.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace coppice::e2e {
namespace {

using clock = std::chrono::steady_clock;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

cli_outcome run_program(const std::filesystem::path& program, const std::vector<std::string>& arguments) {
  child_program child(program, arguments);
  const auto code = child.wait_for_exit(patience);
  EXPECT_TRUE(code) << program << " does not end; so far: " << child.output();
  return {code.value_or(-1), child.output()};
}

daemon::daemon(const std::filesystem::path& vmm, std::vector<std::string> extra,
               std::optional<std::filesystem::path> root) {
  if (!root) {
    ::setenv("TMPDIR", "/var/tmp", 1);  // a disk, not tmpfs: O_DIRECT and fsync as users have them
    own_root_.emplace();
  }
  root_ = root ? *root : own_root_->path() / "root";
  std::vector<std::string> arguments{"--root", root_.string(), "--listen", "127.0.0.1:0", "--vmm", vmm.string()};
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  process_.emplace(coppiced, arguments);
  constexpr std::string_view marker = "listening on ";
  if (!process_->wait_for_output(marker)) return;
  const std::size_t begin = process_->output().find(marker) + marker.size();
  while (process_->output().find('\n', begin) == std::string::npos) {
    if (!process_->wait_for_output("\n")) return;
  }
  auto client =
      api_client::create(process_->output().substr(begin, process_->output().find_first_of(" \r\n", begin) - begin));
  if (client) client_.emplace(std::move(*client));
}

cli_outcome daemon::cli(std::vector<std::string> arguments) const {
  arguments.insert(arguments.begin(), {"--server", api().url()});
  return run_program(coppice_cli, arguments);
}

std::string daemon::start_parent(const std::string& memory, const std::string& boot_args) {
  std::vector<std::string> create{"snapshot", "create", "base", "--kernel", journal_kernel.string(),
                                  "--memory", memory};
  if (!boot_args.empty()) create.insert(create.end(), {"--boot-args", boot_args});
  const cli_outcome base = cli(create);
  EXPECT_EQ(base.exit_code, 0) << base.output << process_->output();
  auto made = api().post("/v1/sandboxes", {{"snapshot_tag", "base"}, {"n", 1}});
  EXPECT_TRUE(made) << made.error().message();
  return made ? made->at(0).at("id").get<std::string>() : "";
}

result<nlohmann::json> daemon::branch(const std::string& sandbox, const nlohmann::json& body) const {
  const auto deadline = clock::now() + patience;
  for (;;) {
    auto made = api().post("/v1/sandboxes/" + sandbox + "/branch", body);
    if (made || clock::now() > deadline) return made;
    const std::string reason = made.error().message();
    if (reason.find("missed its deadline") == std::string::npos && reason.find("is stuck") == std::string::npos)
      return made;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

bool daemon::advances(const std::string& sandbox, std::uint64_t steps) const {
  const auto deadline = clock::now() + patience;
  std::optional<std::uint64_t> first;
  while (clock::now() < deadline) {
    auto journal = api().get("/v1/sandboxes/" + sandbox + "/journal");
    if (!journal) return false;
    const auto now = journal->at("steps").get<std::uint64_t>();
    if (!first) first = now;
    if (now >= *first + steps) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

std::uint64_t daemon::gaps(const std::string& sandbox) const {
  auto journal = api().get("/v1/sandboxes/" + sandbox + "/journal");
  return journal ? journal->at("gaps").get<std::uint64_t>() : ~0ULL;
}

std::uint64_t daemon::anonymous_bytes() const {
  const std::string status = read_file("/proc/" + std::to_string(process_->pid()) + "/status");
  const std::size_t at = status.find("RssAnon:");
  return at == std::string::npos ? 0 : std::stoull(status.substr(at + 8)) * 1024;
}

std::size_t daemon::open_fds() const {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each :
       std::filesystem::directory_iterator("/proc/" + std::to_string(process_->pid()) + "/fd")) {
    ++count;
  }
  return count;
}

std::vector<pid_t> processes_naming(const std::string& text) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (read_file(entry.path() / "cmdline").find(text) != std::string::npos) found.push_back(std::stoi(name));
  }
  return found;
}

bool no_process_names(const std::string& text) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!processes_naming(text).empty()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace coppice::e2e
