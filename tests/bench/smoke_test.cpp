// Every subcommand of the real program, as small as it goes: not how fast anything is, but that all that is promised is
// measured and said, and no image is wrong.
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/file.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice::bench {
namespace {

struct outcome {
  int exit_code = -1;
  std::string output;
};

outcome run_bench(const std::string& arguments) {
  FILE* const pipe = ::popen((COPPICE_BENCH " " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return {};
  outcome seen;
  char part[4096];
  while (const std::size_t got = ::fread(part, 1, sizeof part, pipe)) seen.output.append(part, got);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) seen.exit_code = WEXITSTATUS(status);
  return seen;
}

class coppice_bench : public ::testing::Test {
 protected:
  static bool has_kvm() { return ::access("/dev/kvm", R_OK | W_OK) == 0; }

  // Runs it, and reads its JSON.
  void measure(const std::string& arguments, bool has_root = true) {
    const auto file = folder_.path() / "out.json";
    const std::string root = has_root ? " --root " + folder_.path().string() : "";
    const outcome seen = run_bench(arguments + root + " --json " + file.string());
    ASSERT_EQ(seen.exit_code, 0) << seen.output;  // a missed target is no failure, a bad page is one
    const auto text = read_text_file(file);
    ASSERT_TRUE(text) << text.error().message();
    report_ = nlohmann::json::parse(*text, nullptr, false);
    ASSERT_TRUE(report_.is_object()) << *text;
    table_ = seen.output;
    expect_environment();
  }

  void expect_environment() const {
    const nlohmann::json& environment = report_.at("environment");
    for (const char* name :
         {"cpu", "cores", "hypervisor", "kernel", "kvm", "kvm_by", "root_file_system", "load_average",
          "cpu_busy_percent", "cpu_steal_percent", "seconds", "version", "build", "time"})
      EXPECT_TRUE(environment.contains(name)) << name;
    for (const char* name : {"machine", "CPU time", "kernel", "VMM", "file system", "settings"})
      EXPECT_NE(table_.find(name), std::string::npos) << name << " is missing above the table:\n" << table_;
  }
  void expect_settings(const std::set<std::string>& wanted) const {
    std::set<std::string> found;
    for (const auto& [name, value] : report_.at("settings").items()) found.insert(name);
    EXPECT_EQ(found, wanted);
  }
  void expect_figures(std::initializer_list<const char*> names) const {
    for (const char* name : names) EXPECT_TRUE(find(name) != nullptr) << name << " is missing:\n" << table_;
  }
  void expect_no_bad_pages() const {
    ASSERT_NE(find("bad_pages"), nullptr);
    for (const nlohmann::json& figure : report_.at("figures")) {
      if (figure.at("name") != "bad_pages") continue;
      EXPECT_EQ(figure.at("worst"), 0.0) << figure;
    }
  }
  const nlohmann::json* find(const std::string& name) const {
    for (const nlohmann::json& figure : report_.at("figures")) {
      if (figure.at("name") == name && figure.at("count") > 0) return &figure;
    }
    return nullptr;
  }

  temp_dir folder_;
  nlohmann::json report_;
  std::string table_;
};

TEST_F(coppice_bench, branch_measures_pause_stall_and_copy_beside_their_baselines) {
  if (!has_kvm()) GTEST_SKIP() << "no /dev/kvm";
  ASSERT_NO_FATAL_FAILURE(
      measure("branch --memory 32M --working-set 8M --pattern sequential --mode live,full --branches 2"));
  expect_settings({"bounce-memory", "branch-copy-rate", "branches", "copy-rate", "memory", "mode", "pattern", "root",
                   "sparse", "vmm", "working-set"});
  EXPECT_EQ(report_.at("settings").at("sparse"), "false");
  EXPECT_TRUE(report_.at("environment").at("vmm").is_object());
  expect_figures({"total_us",
                  "pause_us",
                  "snapshot_us",
                  "rearm_us",
                  "resume_us",
                  "bare_sum_us",
                  "bare_pause_us",
                  "bare_snapshot_us",
                  "bare_resume_us",
                  "repeated_bare_sum_us",
                  "repeated_bare_pause_us",
                  "repeated_bare_snapshot_us",
                  "repeated_bare_resume_us",
                  "median_total_to_repeated_bare",
                  "bare_fault_us",
                  "armed_bare_sum_us",
                  "armed_bare_pause_us",
                  "armed_bare_snapshot_us",
                  "armed_bare_resume_us",
                  "median_total_to_bare",
                  "p99_total_to_bare",
                  "median_total_to_armed_bare",
                  "median_pause_to_armed_bare",
                  "median_snapshot_to_armed_bare",
                  "median_resume_to_armed_bare",
                  "stall_us",
                  "idle_stall_us",
                  "plain_copy_stall_us",
                  "plain_digests_stall_us",
                  "plain_copy_to_idle_speed",
                  "plain_digests_to_idle_speed",
                  "median_stall_above_idle_us",
                  "unseen_stalls",
                  "copy_us",
                  "copy_gb_per_s",
                  "faults",
                  "ready_ms"});
  EXPECT_EQ(find("p99_total_to_bare")->at("target").at("not_judged"), "2 branches, 100 needed");
  EXPECT_NE(table_.find("not judged: 2 branches, 100 needed"), std::string::npos) << table_;
  expect_no_bad_pages();
}

TEST_F(coppice_bench, branch_measures_with_the_daemons_copies_under_limits) {
  if (!has_kvm()) GTEST_SKIP() << "no /dev/kvm";
  ASSERT_NO_FATAL_FAILURE(
      measure("branch --memory 32M --working-set 8M --branches 2 --branch-copy-rate 64M --copy-rate 128M "
              "--bounce-memory 16M"));
  EXPECT_EQ(report_.at("settings").at("branch-copy-rate"), "64M");
  EXPECT_LT(find("copy_gb_per_s")->at("best"), 0.1);
  expect_no_bad_pages();
}

TEST_F(coppice_bench, copy_measures_the_engine_beside_the_floors_of_disk_and_tmpfs) {
  ASSERT_NO_FATAL_FAILURE(measure("copy --memory 16M --rounds 2"));
  expect_settings({"memory", "root", "rounds"});
  expect_figures({"engine_to_disk_gb_per_s", "o_direct_gb_per_s", "o_direct_digests_gb_per_s",
                  "engine_to_o_direct_ratio", "engine_to_o_direct_digests_ratio", "engine_to_reused_tmpfs_gb_per_s",
                  "memcpy_to_reused_tmpfs_gb_per_s", "pwrite_to_reused_tmpfs_gb_per_s",
                  "pwrite_digests_to_reused_tmpfs_gb_per_s", "engine_to_memcpy_ratio", "pwrite_to_memcpy_ratio",
                  "engine_to_pwrite_ratio", "engine_to_pwrite_digests_ratio"});
  expect_no_bad_pages();
}

TEST_F(coppice_bench, fault_measures_single_faults_and_those_of_storms) {
  ASSERT_NO_FATAL_FAILURE(measure("fault --memory 4M --writers 2 --rounds 1", false));
  expect_settings({"memory", "rounds", "writers"});
  expect_figures({"bare_fault_us", "fault_us", "bare_faults_per_s", "faults_per_s", "bare_storm_fault_median_us",
                  "storm_fault_median_us", "storm_fault_p90_us", "storm_fault_p99_us", "storm_fault_worst_us",
                  "storm_faults_timed"});
}

TEST_F(coppice_bench, actors_measures_the_control_plane_beside_a_plain_loop) {
  if (!has_kvm()) GTEST_SKIP() << "no /dev/kvm";
  ASSERT_NO_FATAL_FAILURE(measure("actors --memory 32M --branches 2"));
  expect_settings({"branches", "memory", "root", "vmm"});
  expect_figures({"total_us", "pause_us", "median_added_us", "median_to_plain_loop"});
}

TEST_F(coppice_bench, fleet_measures_many_vms_beside_bare_calls_and_idle_windows) {
  if (!has_kvm()) GTEST_SKIP() << "no /dev/kvm";
  ASSERT_NO_FATAL_FAILURE(
      measure("fleet --sandboxes 3 --memory 16M --rate 5 --duration 1s --warm-up 200ms --idle 200ms --verify-each 1"));
  expect_settings({"askers", "bounce-memory", "branch-copy-rate", "copy-rate", "duration", "idle", "sandboxes",
                   "memory", "rate", "rest", "root", "verify-each", "vmm", "warm-up"});
  expect_figures({"branches_done", "branches_failed", "pause_us", "p99_pause_us", "bare_sum_us", "median_pause_to_bare",
                  "stall_us", "idle_stall_us", "daemon_idle_cpu_percent", "daemon_kib_a_sandbox"});
  EXPECT_EQ(find("images_verified")->at("median"), find("branches_done")->at("median"));
  expect_no_bad_pages();
}

TEST_F(coppice_bench, soak_tells_whether_anything_is_left_behind) {
  if (!has_kvm()) GTEST_SKIP() << "no /dev/kvm";
  ASSERT_NO_FATAL_FAILURE(measure("soak --branches 10 --overlap 2"));
  expect_settings({"bounce-memory", "branch-copy-rate", "branches", "copy-rate", "overlap", "root", "vmm"});
  expect_figures({"branches_done", "branches_failed", "branches_under_way", "gaps", "pause_us", "daemon_growth_kib",
                  "thread_growth", "open_file_growth"});
  EXPECT_TRUE(find("daemon_growth_kib")->contains("target"));
  EXPECT_EQ(find("thread_growth")->at("median"), 0.0);
  EXPECT_EQ(find("open_file_growth")->at("median"), 0.0);
  expect_no_bad_pages();
}

TEST_F(coppice_bench, compare_finds_a_run_to_be_as_good_as_itself) {
  ASSERT_NO_FATAL_FAILURE(measure("fault --memory 4M --writers 1 --rounds 1", false));
  const std::string file = (folder_.path() / "out.json").string();
  const outcome seen = run_bench("compare " + file + " " + file);
  EXPECT_EQ(seen.exit_code, 0) << seen.output;
  EXPECT_NE(seen.output.find("same"), std::string::npos) << seen.output;
  EXPECT_EQ(seen.output.find("worse"), std::string::npos) << seen.output;
}

}  // namespace
}  // namespace coppice::bench
