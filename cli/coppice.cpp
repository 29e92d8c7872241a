#include "cli/coppice.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>

#include "base/units.hpp"
#include "cli/branch_command.hpp"
#include "cli/client_options.hpp"
#include "cli/demo.hpp"
#include "cli/events_command.hpp"
#include "cli/guest_commands.hpp"
#include "cli/sandbox_commands.hpp"
#include "cli/snapshot_commands.hpp"
#include "cli/top.hpp"
#include "cli/version_command.hpp"
#include "doctor/doctor.hpp"
#include "options/completion.hpp"
#include "options/exit_codes.hpp"
#include "options/size_option.hpp"

namespace coppice {
namespace {

// What the command line says. Each subcommand stores what is to be done in `action`.
struct command_line {
  client_options daemon;
  bool json = false;
  bool names_only = false;
  std::string name;                // TAG or ID
  std::vector<std::string> names;  // several of them
  bool cascade = false;
  bool reset_journal = false;
  std::string code;  // to evaluate
  std::string memory = "256M";
  sandbox_create_arguments sandboxes;
  exec_arguments exec;
  bool no_wait = false;
  snapshot_create_arguments create;
  branch_arguments branch;
  events_arguments events;
  demo_options demo;
  doctor_options doctor;
  top_options top;
  std::function<int(const command_context&)> action;
  std::function<int(std::ostream& out, std::ostream& err)> local_action;  // instead: one that needs no daemon
};

CLI::App* add(CLI::App& parent, const char* name, const char* description, const char* example) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->footer("Example:\n  " + std::string(example));
  return command;
}

void name_argument(CLI::App* command, command_line& line, const char* what) {
  command->add_option(what, line.name)->required();
}

// `run` with the command line's name, as the command's action.
void name_argument_of(CLI::App* command, command_line& line, const char* what,
                      int (*run)(const command_context&, const std::string&)) {
  name_argument(command, line, what);
  command->callback(
      [&line, run] { line.action = [&line, run](const auto& context) { return run(context, line.name); }; });
}

void add_snapshot_create(CLI::App& group, command_line& line) {
  CLI::App* create = add(group, "create", "Boot a kernel and take its snapshot",
                         "coppice snapshot create base --kernel /usr/share/coppice/journal.elf --memory 256M");
  create->add_option("TAG", line.create.tag, "Name of the snapshot")->required();
  create->add_option("--kernel", line.create.kernel, "ELF kernel, read by the daemon")->required();
  create->add_option("--initrd", line.create.initrd, "Initial RAM disk, read by the daemon");
  create->add_option("--memory", line.memory, "RAM, e.g. 256M or 1G")->capture_default_str()->check(is_size());
  create->add_option("--vcpus", line.create.vcpus, "Virtual CPUs")->capture_default_str();
  create->add_option("--boot-args", line.create.boot_args, "Kernel command line");
  create->add_option("--rootfs", line.create.rootfs, "Root file system image, attached read-only");
  create->add_flag("--network", line.create.network, "With a network interface: eth0, 10.42.0.2/24");
  create->add_option("--boot-time-ms", line.create.boot_time_ms,
                     "How long the guest runs before its snapshot is taken (default 1000, at most 60000)");
  create->add_flag("-q,--quiet", line.create.tag_only, "Print the tag only");
  create->callback([&line] {
    line.create.memory_bytes = *parse_bytes(line.memory);
    line.action = [&line](const auto& context) { return create_snapshot(context, line.create); };
  });
}

void add_snapshot_commands(CLI::App& app, command_line& line) {
  CLI::App* group = add(app, "snapshot", "Snapshots: create, list, verify, remove", "coppice snapshot ls");
  group->require_subcommand(1);
  add_snapshot_create(*group, line);
  CLI::App* list = add(*group, "ls", "List the snapshots", "coppice snapshot ls --json");
  list->add_flag("-q,--quiet", line.names_only, "Print the tags only");
  list->callback([&line] { line.action = line.names_only ? list_snapshot_tags : list_snapshots; });
  name_argument_of(add(*group, "info", "Show one snapshot: pause, copy, checksum", "coppice snapshot info b1"), line,
                   "TAG", show_snapshot);
  name_argument_of(add(*group, "verify", "Read the image again and check every page", "coppice snapshot verify b1"),
                   line, "TAG", verify_snapshot);
  CLI::App* remove = add(*group, "rm", "Remove snapshots; one in the making is given up", "coppice snapshot rm b1 b2");
  remove->add_option("TAG", line.names)->required();
  remove->add_flag("--cascade", line.cascade, "Also all snapshots that descend from them");
  remove->callback([&line] {
    line.action = [&line](const auto& context) { return remove_snapshots(context, line.names, line.cascade); };
  });
}

void add_sandbox_commands(CLI::App& app, command_line& line) {
  CLI::App* group = add(app, "sandbox", "Sandboxes: running microVMs", "coppice sandbox ls");
  group->require_subcommand(1);
  CLI::App* create = add(*group, "create", "Start sandboxes from a snapshot", "coppice sandbox create b1 -n 4");
  create->add_option("TAG", line.sandboxes.tag)->required();
  create->add_option("-n", line.sandboxes.n, "How many")->capture_default_str();
  create->add_flag("--netns", line.sandboxes.network_namespaces,
                   "Each in a network namespace of its own, with a tap; needed if the snapshot has a network");
  create
      ->add_option("--memory-limit-mib", line.sandboxes.memory_limit_mib,
                   "Most memory of each, RAM and VMM together; over it, it is killed (needs coppiced --cgroup)")
      ->check(CLI::Range(1, 1048576));
  create->add_flag("-q,--quiet", line.sandboxes.ids_only, "Print the ids only");
  create->callback(
      [&line] { line.action = [&line](const auto& context) { return create_sandboxes(context, line.sandboxes); }; });
  CLI::App* list = add(*group, "ls", "List the sandboxes", "coppice sandbox ls");
  list->add_flag("-q,--quiet", line.names_only, "Print the ids only");
  list->callback([&line] { line.action = line.names_only ? list_sandbox_ids : list_sandboxes; });
  name_argument_of(add(*group, "info", "Show one sandbox", "coppice sandbox info sb-1"), line, "ID", show_sandbox);
  CLI::App* remove = add(*group, "rm", "End sandboxes", "coppice sandbox rm sb-1 sb-2");
  remove->add_option("ID", line.names)->required();
  remove->callback(
      [&line] { line.action = [&line](const auto& context) { return remove_sandboxes(context, line.names); }; });
}

void add_exec_command(CLI::App& app, command_line& line) {
  CLI::App* exec = add(app, "exec", "Run a program in a sandbox, by the agent inside; the exit code is the program's",
                       "coppice exec sb-1 -- uname -a\n\n"
                       "If a signal ended the program, the exit code is 128 and the signal's number. 125: it was not "
                       "run, or not to its end;\n126: it can't be executed; 127: there is no such program.");
  exec->add_option("ID", line.exec.id, "The sandbox; it needs a network namespace (sandbox create --netns)")
      ->required();
  exec->add_option("PROGRAM", line.exec.program, "The program and its arguments")->required();
  exec->add_option("--timeout", line.exec.timeout_seconds, "Seconds that it may take")
      ->capture_default_str()
      ->check(CLI::Range(1, 86400));
  exec->callback(
      [&line] { line.action = [&line](const auto& context) { return exec_in_sandbox(context, line.exec); }; });
}

void add_guest_commands(CLI::App& app, command_line& line) {
  add_exec_command(app, line);
  CLI::App* eval =
      add(app, "eval", "Evaluate code in the agent inside a sandbox, and print its value", "coppice eval sb-1 '6 * 7'");
  name_argument(eval, line, "ID");
  eval->add_option("CODE", line.code, "In the agent's language")->required();
  eval->callback([&line] {
    line.action = [&line](const auto& context) { return eval_in_sandbox(context, line.name, line.code); };
  });
  name_argument_of(add(app, "ping", "Ask the agent inside a sandbox whether it lives", "coppice ping sb-1"), line, "ID",
                   ping_sandbox);
  CLI::App* journal =
      add(app, "journal", "Show what the journal guest of a sandbox reports: steps, gaps, longest stall",
          "coppice journal sb-1 --reset");
  name_argument(journal, line, "ID");
  journal->add_flag("--reset", line.reset_journal, "Forget the longest stall after reading it");
  journal->callback([&line] {
    line.action = [&line](const auto& context) { return show_journal(context, line.name, line.reset_journal); };
  });
}

void add_branch_command(CLI::App& app, command_line& line) {
  CLI::App* branch = add(app, "branch", "Branch a running sandbox into a snapshot", "coppice branch sb-1 --tag b1");
  branch->add_option("ID", line.branch.id, "The sandbox")->required();
  branch->add_option("--tag", line.branch.tag, "Name of the branch (default: the daemon chooses)");
  branch
      ->add_option("--mode", line.branch.mode,
                   "live: memory is copied while the guest runs; full, diff: in the pause (default: live, if the VMM "
                   "can)")
      ->check(CLI::IsMember({"live", "full", "diff"}));
  CLI::Option* trace = branch->add_option("--trace", line.branch.trace_file,
                                          "Write where the time went to this file, for ui.perfetto.dev");
  branch->add_flag("--no-wait", line.no_wait, "Return when the guest runs again, while memory is still being copied")
      ->excludes(trace);
  branch->add_flag("-q,--quiet", line.branch.tag_only, "Print the tag only");
  branch->callback([&line] {
    line.branch.wait = !line.no_wait;
    line.action = [&line](const auto& context) { return branch_sandbox(context, line.branch); };
  });
  name_argument_of(add(app, "verify", "Same as snapshot verify", "coppice verify b1"), line, "TAG", verify_snapshot);
}

void add_daemon_commands(CLI::App& app, command_line& line) {
  CLI::App* events =
      add(app, "events", "Print changes of sandboxes, branches and snapshots as they happen, a line each",
          "coppice events --json");
  events
      ->add_option("--since", line.events.since,
                   "Id of the last event that was seen: begin after it (default: with what happens from now on)")
      ->check(CLI::NonNegativeNumber);
  events->callback(
      [&line] { line.action = [&line](const auto& context) { return follow_events(context, line.events); }; });
  CLI::App* version =
      add(app, "version", "Print the versions of this program, the daemon and its VMM, and what that can do",
          "coppice version --json");
  version->callback([&line] { line.action = show_version; });
}

void add_demo_command(CLI::App& app, command_line& line) {
  CLI::App* demo =
      add(app, "demo", "The main job with a daemon of its own: branch a guest that writes, check every page",
          "coppice demo --branches 10 --json demo.json");
  demo->add_option("--json", line.demo.json_file, "Write the results to this file, too");
  demo->add_option("--root", line.demo.root, "Folder for the temporary root; a real disk (default: $TMPDIR, /var/tmp)");
  demo->add_option("--vmm", line.demo.vmm, "VMM binary (default: the coppice-vmm beside this program)");
  demo->add_option("--kernel", line.demo.kernel, "Journal guest (default: the one that comes with this program)");
  demo->add_option("--boot-args", line.demo.boot_args, "Command line of the guest")->capture_default_str();
  demo->add_option("--branches", line.demo.branches, "Live branches")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  demo->add_option("--children", line.demo.children, "Children of the last branch")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  demo->add_option("--memory", line.memory, "RAM of the guest")->capture_default_str()->check(is_size());
  demo->callback([&line] {
    line.demo.memory_bytes = *parse_bytes(line.memory);
    line.local_action = [&line](std::ostream& out, std::ostream& err) {
      line.demo.json = line.json;
      return run_demo(line.demo, out, err);
    };
  });
}

void add_doctor_command(CLI::App& app, command_line& line) {
  CLI::App* doctor = add(app, "doctor", "Check that this host has what coppiced needs",
                         "coppice doctor --root /var/lib/coppice --vmm /usr/local/bin/firecracker");
  doctor->add_option("--config", line.doctor.config,
                     "Configuration of the daemon (default: /etc/coppice/coppiced.toml, if it is there)");
  doctor->add_option("--root", line.doctor.root, "Root of the daemon (default: as configured, or /var/lib/coppice)");
  doctor->add_option("--vmm", line.doctor.vmm,
                     "VMM binary (default: as configured, or the coppice-vmm beside coppice)");
  doctor->add_option("--listen", line.doctor.listen,
                     "Address of the daemon (default: as configured, or 127.0.0.1:8889)");
  doctor->callback([&line] {
    line.local_action = [&line](std::ostream& out, std::ostream&) { return run_doctor(line.doctor, line.json, out); };
  });
}

void add_top_command(CLI::App& app, command_line& line) {
  CLI::App* top = add(app, "top", "Watch a daemon: its figures, and its sandboxes, the busiest first; q ends",
                      "coppice top --interval 1");
  top->add_option("--interval", line.top.interval_seconds, "Seconds between two frames")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 3600.0));
  top->add_flag("--once", line.top.once, "Print one frame and end; so it does where there is no terminal");
  top->callback([&line] { line.action = [&line](const auto& context) { return run_top(context, line.top); }; });
}

void add_completion_command(CLI::App& app, command_line& line) {
  CLI::App* completion = add(app, "completion", "Print a completion script for a shell",
                             "coppice completion bash > /usr/share/bash-completion/completions/coppice");
  completion->add_option("SHELL", line.name, "The shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, &line] {
    line.local_action = [&app, &line](std::ostream& out, std::ostream&) {
      out << completion_script(app, line.name);
      return exit_ok;
    };
  });
}

void add_connection_options(CLI::App& app, client_options& daemon) {
  app.add_option("--server", daemon.server, "The daemon's address: http://, https:// or unix:/PATH")
      ->envname("COPPICE_SERVER")
      ->capture_default_str();
  app.add_option("--token-file", daemon.token_file, "File with the token to send (default: $COPPICE_TOKEN)")
      ->envname("COPPICE_TOKEN_FILE");
  app.add_option("--tls-ca", daemon.tls.ca, "CA (PEM) of the daemon's certificate (default: the system's)")
      ->envname("COPPICE_TLS_CA");
  CLI::Option* certificate =
      app.add_option("--tls-cert", daemon.tls.certificate, "Certificate (PEM) to show the daemon");
  CLI::Option* key = app.add_option("--tls-key", daemon.tls.key, "PEM key of --tls-cert");
  certificate->needs(key);
  key->needs(certificate);
}

int perform(const command_line& line, bool is_exec, std::ostream& out, std::ostream& err) {
  if (line.local_action) return line.local_action(out, err);
  auto client = make_client(line.daemon);
  if (!client.ok()) {
    return report_failure(err, line.json, client.error(), is_exec ? exit_not_run : exit_code_of(client.error().code));
  }
  const command_context context{*std::move(client), line.json, !line.json && ::isatty(STDERR_FILENO) == 1, out, err};
  return line.action(context);
}

// What the parsing of a wrong command line has left unknown.
bool asks_for_json(int argc, const char* const* argv) {
  const auto end = std::find(argv, argv + argc, std::string_view("--"));
  return std::find(argv, end, std::string_view("--json")) != end;
}

// The command that was named, as far as the words could be understood: "coppice snapshot rm".
std::string command_named(const CLI::App& app) {
  const auto below = app.get_subcommands();
  return app.get_name() + (below.empty() ? "" : ' ' + command_named(*below.front()));
}

}  // namespace

int run_coppice(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  command_line line;
  CLI::App app("Branches running microVMs: the command line of coppiced.", "coppice");
  app.fallthrough();  // --server and --json may follow the command
  app.require_subcommand(1);
  app.footer("Example:\n  coppice branch sb-1 --tag b1\n\n" + std::string(exit_codes_help));
  add_connection_options(app, line.daemon);
  app.add_flag("--json", line.json, "Print JSON instead of text; failures too, on stderr");
  app.set_version_flag("--version", "coppice " COPPICE_VERSION);
  add_snapshot_commands(app, line);
  add_sandbox_commands(app, line);
  add_branch_command(app, line);
  add_guest_commands(app, line);
  add_daemon_commands(app, line);
  add_demo_command(app, line);
  add_top_command(app, line);
  add_doctor_command(app, line);
  add_completion_command(app, line);
  try {
    app.parse(argc, argv);
    return perform(line, app.got_subcommand("exec"), out, err);
  } catch (const CLI::ParseError& failure) {
    if (failure.get_exit_code() == 0) return app.exit(failure, out, err);  // help, or the version
    const std::string what = std::string(failure.what()) + "\nSee '" + command_named(app) + " --help'.";
    return report_failure(err, asks_for_json(argc, argv) && !app.got_subcommand("demo"),
                          {errc::invalid_argument, 0, what}, app.got_subcommand("exec") ? exit_not_run : exit_usage);
  } catch (const std::exception& failure) {
    return report_failure(err, line.json, {errc::internal, 0, failure.what()},
                          app.got_subcommand("exec") ? exit_not_run : exit_failed);
  }
}

}  // namespace coppice
