// coppice-bench: measures what Coppice costs a running VM, beside what the machine can do at best.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <filesystem>
#include <functional>
#include <iostream>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "bench/actors_bench.hpp"
#include "bench/branch_bench.hpp"
#include "bench/compare.hpp"
#include "bench/copy_bench.hpp"
#include "bench/environment.hpp"
#include "bench/fault_bench.hpp"
#include "bench/fleet_bench.hpp"
#include "bench/parsing.hpp"
#include "bench/report.hpp"
#include "bench/soak_bench.hpp"
#include "options/exit_codes.hpp"
#include "options/size_option.hpp"

namespace coppice::bench {
namespace {

using nlohmann::json;

// What all benchmarks are told.
struct common_settings {
  std::string json_file;
  std::string root = "/var/tmp";
  std::string vmm;
};

// `job` fills the report; the settings are what `app` was given or assumed.
int run_report(const CLI::App& app, const common_settings& common,
               const std::function<result<void>(report&, json& environment)>& job) {
  json settings = json::object();
  for (const CLI::Option* option :
       app.get_options([](const CLI::Option* each) { return !each->get_lnames().empty(); })) {
    const std::string& name = option->get_lnames().front();
    if (name == "help" || name == "json") continue;
    const bool is_flag = option->get_items_expected_max() == 0;
    settings[name] = option->count() > 0 ? option->as<std::string>() : is_flag ? "false" : option->get_default_str();
  }
  report made(app.get_name(), std::move(settings));
  json environment = describe_environment(common.root);
  const cpu_watch cpu;
  const auto begin = std::chrono::steady_clock::now();
  const auto outcome = job(made, environment);
  environment["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  environment.update(cpu.since_then());
  made.set_environment(std::move(environment));
  if (!outcome) std::cerr << "coppice-bench: " << outcome.error().message() << '\n';
  made.print(std::cout);  // what was measured until a failure, too
  const int code = !outcome ? exit_failed : made.is_wrong() ? exit_bad_data : exit_ok;
  if (common.json_file.empty()) return code;
  if (const auto written = write_text_file(common.json_file, made.to_json().dump(1) + "\n"); !written) {
    std::cerr << "coppice-bench: " << written.error().message() << '\n';
    return 1;
  }
  return code;
}

result<json> read_report(const std::string& path) {
  auto text = read_text_file(path);
  if (!text) return std::move(text).error();
  json parsed = json::parse(*text, nullptr, false);
  if (parsed.is_discarded()) return error{errc::corrupt, 0, path + " is no JSON"};
  return parsed;
}

int run_compare(const std::string& before_file, const std::string& after_file, const std::string& json_file) {
  const auto fail = [](const error& why) {
    std::cerr << "coppice-bench: " << why.message() << '\n';
    return 1;
  };
  const auto before = read_report(before_file), after = read_report(after_file);
  if (!before) return fail(before.error());
  if (!after) return fail(after.error());
  const auto all = compare(*before, *after);
  if (!all) return fail(all.error());
  for (const std::string& each : differences(*before, *after)) std::cout << "not the same: " << each << '\n';
  print_comparison(std::cout, *all);
  if (json_file.empty()) return 0;
  const auto written = write_text_file(json_file, to_json(*all).dump(1) + "\n");
  return written ? 0 : fail(written.error());
}

template <class Parse>
CLI::Validator parses_by(Parse parse, const char* type) {
  return {[parse](std::string& text) {
            const auto parsed = parse(text);
            return parsed ? std::string() : parsed.error().message();
          },
          type};
}
CLI::Validator is_count() {
  return CLI::Range(1, 100'000);
}
CLI::Validator is_size_list() {
  return parses_by(parse_sizes, "SIZE,...");
}

// Everything that the command line can say; each subcommand puts what is to be done into `run`.
struct command_line {
  common_settings common;
  std::function<int()> run;
  std::string memory;
  std::string working_sets = "16M";
  std::string patterns = "random";
  std::string modes = "live";
  bool sparse = false;
  copy_limits limits;
  branch_options branch;
  copy_options copy;
  actors_options actors;
  fleet_options fleet;
  soak_options soak;
  std::string duration = "60s";
  std::string rest = "100ms";
  std::string warm_up = "2s";
  std::string idle = "10s";
  fault_options fault;
  std::string before, after;
};

CLI::App* add_benchmark(CLI::App& app, const char* name, const char* what, command_line& line) {
  CLI::App* command = app.add_subcommand(name, what);
  command->add_option("--json", line.common.json_file, "Write the results here as JSON too");
  return command;
}
void add_root(CLI::App* command, command_line& line) {
  command->add_option("--root", line.common.root, "Folder on the disk that images are written to")
      ->capture_default_str()
      ->check(CLI::ExistingDirectory);
}
void add_memory(CLI::App* command, command_line& line, const char* standard) {
  // Of the command that is given only: all share the variable.
  command->preparse_callback([&line, standard](std::size_t) { line.memory = standard; });
  command->add_option("--memory", line.memory, "Sizes of RAM")->default_str(standard)->check(is_size_list());
}

void add_duration(CLI::App* command, const char* name, std::string& value, const char* what) {
  command->add_option(name, value, what)->capture_default_str()->check(parses_by(parse_duration, "TIME"));
}

void add_vmm(CLI::App* command, command_line& line) {
  command
      ->add_option("--vmm", line.common.vmm,
                   "coppice-vmm or firecracker binary (default: the build tree's coppice-vmm)")
      ->check(CLI::ExistingFile);
}

void add_limits(CLI::App* command, command_line& line) {
  command->add_option("--copy-rate", line.limits.copy_rate, "Bytes per second that all copies together may write")
      ->check(is_size());
  command->add_option("--branch-copy-rate", line.limits.branch_copy_rate, "The same for each branch")->check(is_size());
  command->add_option("--bounce-memory", line.limits.bounce_memory, "Memory of the daemon's for pages saved at faults")
      ->check(is_size());
}

void add_branch(CLI::App& app, command_line& line) {
  CLI::App* command = add_benchmark(app, "branch", "Branches of a running VM: pause, stall, speed, copy", line);
  add_root(command, line);
  add_vmm(command, line);
  add_limits(command, line);
  add_memory(command, line, "256M");
  command->add_option("--working-set", line.working_sets, "How much of the RAM the guest writes to")
      ->capture_default_str()
      ->check(is_size_list());
  command->add_option("--pattern", line.patterns, "In which order: random, sequential, zipf")
      ->capture_default_str()
      ->check(parses_by(parse_patterns, "PATTERN,..."));
  command->add_option("--mode", line.modes, "How to branch: live, full, diff")
      ->capture_default_str()
      ->check(parses_by(parse_modes, "MODE,..."));
  command->add_option("--branches", line.branch.branches, "Branches of each combination")
      ->capture_default_str()
      ->check(is_count());
  command->add_flag("--sparse", line.sparse, "Leave the RAM that the guest does not write to empty");
  command->callback([&line, command] {
    line.run = [&line, command] {
      line.branch.memory_bytes = *parse_sizes(line.memory);
      line.branch.working_set_bytes = *parse_sizes(line.working_sets);
      line.branch.patterns = *parse_patterns(line.patterns);
      line.branch.modes = *parse_modes(line.modes);
      line.branch.fill_memory = !line.sparse;
      line.branch.root = line.common.root;
      line.branch.vmm = line.common.vmm;
      line.branch.limits = line.limits;
      return run_report(*command, line.common,
                        [&](report& to, json& environment) { return run_branch_bench(line.branch, to, environment); });
    };
  });
}

void add_copy(CLI::App& app, command_line& line) {
  CLI::App* command =
      add_benchmark(app, "copy", "The copy engine alone, beside memcpy, O_DIRECT and buffered writing", line);
  add_root(command, line);
  add_memory(command, line, "1G");
  command->add_option("--rounds", line.copy.rounds, "How often everything is measured")
      ->capture_default_str()
      ->check(is_count());
  command->callback([&line, command] {
    line.run = [&line, command] {
      line.copy.memory_bytes = *parse_sizes(line.memory);
      line.copy.root = line.common.root;
      return run_report(*command, line.common, [&](report& to, json&) { return run_copy_bench(line.copy, to); });
    };
  });
}

void add_fault(CLI::App& app, command_line& line) {
  CLI::App* command =
      add_benchmark(app, "fault", "Write faults, one by one and in storms, beside the bare kernel", line);
  add_memory(command, line, "64M");
  command->add_option("--writers", line.fault.most_writers, "Most threads of a storm")
      ->capture_default_str()
      ->check(is_count());
  command->add_option("--rounds", line.fault.rounds, "How often everything is measured")
      ->capture_default_str()
      ->check(is_count());
  command->callback([&line, command] {
    line.run = [&line, command] {
      line.fault.memory_bytes = parse_sizes(line.memory)->front();
      return run_report(*command, line.common, [&](report& to, json&) { return run_fault_bench(line.fault, to); });
    };
  });
}

void add_actors(CLI::App& app, command_line& line) {
  CLI::App* command =
      add_benchmark(app, "actors", "What the actors add to a pause, beside the same calls in a plain loop", line);
  add_root(command, line);
  add_vmm(command, line);
  add_memory(command, line, "256M");
  command->add_option("--branches", line.actors.branches, "Branches by each of the two")
      ->capture_default_str()
      ->check(is_count());
  command->callback([&line, command] {
    line.run = [&line, command] {
      line.actors.memory_bytes = parse_sizes(line.memory)->front();
      line.actors.root = line.common.root;
      line.actors.vmm = line.common.vmm;
      return run_report(*command, line.common,
                        [&](report& to, json& environment) { return run_actors_bench(line.actors, to, environment); });
    };
  });
}

void add_fleet(CLI::App& app, command_line& line) {
  CLI::App* command = add_benchmark(app, "fleet", "The load test: many VMs, branches all the time", line);
  add_root(command, line);
  add_vmm(command, line);
  add_limits(command, line);
  add_memory(command, line, "16M");
  command->add_option("--sandboxes", line.fleet.sandboxes, "VMs")->capture_default_str()->check(CLI::Range(1, 1000));
  command->add_option("--rate", line.fleet.rate, "Branches a second")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 1000.0));
  add_duration(command, "--duration", line.duration, "How long to branch");
  add_duration(command, "--rest", line.rest, "Idle time of each guest between two writes");
  add_duration(command, "--warm-up", line.warm_up, "How long to branch before anything is measured");
  add_duration(command, "--idle", line.idle, "How long the idle daemon's CPU use is measured");
  command->add_option("--verify-each", line.fleet.verify_each, "Verify every so many-th image; 1: all")
      ->capture_default_str()
      ->check(is_count());
  command->add_option("--askers", line.fleet.askers, "Branches in flight at most")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->callback([&line, command] {
    line.run = [&line, command] {
      line.fleet.memory_bytes = parse_sizes(line.memory)->front();
      line.fleet.duration = *parse_duration(line.duration);
      line.fleet.rest = *parse_duration(line.rest);
      line.fleet.warm_up = *parse_duration(line.warm_up);
      line.fleet.idle = *parse_duration(line.idle);
      line.fleet.root = line.common.root;
      line.fleet.vmm = line.common.vmm;
      line.fleet.limits = line.limits;
      return run_report(*command, line.common,
                        [&](report& to, json& environment) { return run_fleet_bench(line.fleet, to, environment); });
    };
  });
}

void add_soak(CLI::App& app, command_line& line) {
  CLI::App* command =
      add_benchmark(app, "soak", "Live branches for long: every image verified, nothing left behind", line);
  add_root(command, line);
  add_vmm(command, line);
  add_limits(command, line);
  command->add_option("--branches", line.soak.branches, "Branches altogether")
      ->capture_default_str()
      ->check(CLI::Range(10, 1'000'000));
  command->add_option("--overlap", line.soak.overlap, "Branches of one VM at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 8));
  command->callback([&line, command] {
    line.run = [&line, command] {
      line.soak.root = line.common.root;
      line.soak.vmm = line.common.vmm;
      line.soak.limits = line.limits;
      return run_report(*command, line.common,
                        [&](report& to, json& environment) { return run_soak_bench(line.soak, to, environment); });
    };
  });
}

void add_compare(CLI::App& app, command_line& line) {
  CLI::App* command = add_benchmark(app, "compare", "Two runs of the same benchmark: ratio, noise, verdict", line);
  command->add_option("BEFORE", line.before, "JSON of a run")->required()->check(CLI::ExistingFile);
  command->add_option("AFTER", line.after, "JSON of a later run")->required()->check(CLI::ExistingFile);
  command->callback(
      [&line] { line.run = [&line] { return run_compare(line.before, line.after, line.common.json_file); }; });
}

int run(int argc, char** argv) {
  command_line line;
  CLI::App app("Measures what Coppice costs a running VM, beside what the machine can do at best.", "coppice-bench");
  app.footer("Example:\n  coppice-bench copy --memory 256M,1G --root /var/tmp --json copy.json");
  app.set_version_flag("--version", "coppice-bench " COPPICE_VERSION);
  app.require_subcommand(1);
  add_branch(app, line);
  add_copy(app, line);
  add_fault(app, line);
  add_actors(app, line);
  add_fleet(app, line);
  add_soak(app, line);
  add_compare(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? 0 : 2;
  }
  return line.run();
}

}  // namespace
}  // namespace coppice::bench

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return coppice::bench::run(argc, argv);
}
