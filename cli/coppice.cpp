#include "cli/coppice.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <functional>

#include "base/units.hpp"
#include "cli/client_options.hpp"
#include "cli/commands.hpp"
#include "cli/demo.hpp"
#include "cli/top.hpp"
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
  std::string name;  // TAG or ID
  std::string memory = "256M";
  sandbox_create_arguments sandboxes;
  exec_arguments exec;
  bool no_wait = false;
  snapshot_create_arguments create;
  branch_arguments branch;
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

void add_snapshot_commands(CLI::App& app, command_line& line) {
  CLI::App* group = add(app, "snapshot", "Snapshots: create, list, verify, remove", "coppice snapshot ls");
  group->require_subcommand(1);
  CLI::App* create = add(*group, "create", "Boot a kernel and take its snapshot",
                         "coppice snapshot create base --kernel /usr/share/coppice/journal.elf --memory 256M");
  create->add_option("TAG", line.create.tag, "Name of the snapshot")->required();
  create->add_option("--kernel", line.create.kernel, "ELF kernel, read by the daemon")->required();
  create->add_option("--memory", line.memory, "RAM, e.g. 256M or 1G")->capture_default_str()->check(is_size());
  create->add_option("--vcpus", line.create.vcpus, "Virtual CPUs")->capture_default_str();
  create->add_option("--boot-args", line.create.boot_args, "Kernel command line");
  create->add_option("--rootfs", line.create.rootfs, "Root file system image, attached read-only");
  create->add_flag("--network", line.create.network, "With a network interface: eth0, 10.42.0.2/24");
  create->add_option("--boot-time-ms", line.create.boot_time_ms,
                     "How long the guest runs before its snapshot is taken (default 1000, at most 60000)");
  create->callback([&line] {
    line.create.memory_bytes = *parse_bytes(line.memory);
    line.action = [&line](const auto& context) { return create_snapshot(context, line.create); };
  });
  CLI::App* list = add(*group, "ls", "List the snapshots", "coppice snapshot ls --json");
  list->add_flag("-q,--quiet", line.names_only, "Print the tags only");
  list->callback([&line] { line.action = line.names_only ? list_snapshot_tags : list_snapshots; });
  const auto one = [&](const char* name, const char* description, const char* example, auto function) {
    CLI::App* command = add(*group, name, description, example);
    name_argument(command, line, "TAG");
    command->callback([&line, function] {
      line.action = [&line, function](const auto& context) { return function(context, line.name); };
    });
  };
  one("info", "Show one snapshot: pause, copy, checksum", "coppice snapshot info b1", show_snapshot);
  one("verify", "Read the image again and check every page", "coppice snapshot verify b1", verify_snapshot);
  one("rm", "Remove a snapshot", "coppice snapshot rm b1", remove_snapshot);
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
  create->callback(
      [&line] { line.action = [&line](const auto& context) { return create_sandboxes(context, line.sandboxes); }; });
  CLI::App* list = add(*group, "ls", "List the sandboxes", "coppice sandbox ls");
  list->add_flag("-q,--quiet", line.names_only, "Print the ids only");
  list->callback([&line] { line.action = line.names_only ? list_sandbox_ids : list_sandboxes; });
  CLI::App* info = add(*group, "info", "Show one sandbox", "coppice sandbox info sb-1");
  name_argument(info, line, "ID");
  info->callback([&line] { line.action = [&line](const auto& context) { return show_sandbox(context, line.name); }; });
  CLI::App* remove = add(*group, "rm", "End a sandbox", "coppice sandbox rm sb-1");
  name_argument(remove, line, "ID");
  remove->callback(
      [&line] { line.action = [&line](const auto& context) { return remove_sandbox(context, line.name); }; });
}

void add_exec_command(CLI::App& app, command_line& line) {
  CLI::App* exec = add(app, "exec", "Run a program in a sandbox, by the agent inside; the exit code is the program's",
                       "coppice exec sb-1 -- uname -a");
  exec->add_option("ID", line.exec.id, "The sandbox; it needs a network namespace (sandbox create --netns)")
      ->required();
  exec->add_option("PROGRAM", line.exec.program, "The program and its arguments")->required();
  exec->add_option("--timeout", line.exec.timeout_seconds, "Seconds that it may take")
      ->capture_default_str()
      ->check(CLI::Range(1, 86400));
  exec->callback(
      [&line] { line.action = [&line](const auto& context) { return exec_in_sandbox(context, line.exec); }; });
}

void add_branch_command(CLI::App& app, command_line& line) {
  CLI::App* branch =
      add(app, "branch", "Branch a running sandbox into a snapshot", "coppice branch sb-1 --tag b1 --mode live");
  branch->add_option("ID", line.branch.id, "The sandbox")->required();
  branch->add_option("--tag", line.branch.tag, "Name of the branch (default: the daemon chooses)");
  branch
      ->add_option("--mode", line.branch.mode, "live: memory is copied while the guest runs; full, diff: in the pause")
      ->capture_default_str()
      ->check(CLI::IsMember({"live", "full", "diff"}));
  CLI::Option* trace = branch->add_option("--trace", line.branch.trace_file,
                                          "Write where the time went to this file, for ui.perfetto.dev");
  branch->add_flag("--no-wait", line.no_wait, "Return when the guest runs again, while memory is still being copied")
      ->excludes(trace);
  branch->callback([&line] {
    line.branch.wait = !line.no_wait;
    line.action = [&line](const auto& context) { return branch_sandbox(context, line.branch); };
  });
  CLI::App* verify = add(app, "verify", "Same as snapshot verify", "coppice verify b1");
  name_argument(verify, line, "TAG");
  verify->callback(
      [&line] { line.action = [&line](const auto& context) { return verify_snapshot(context, line.name); }; });
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
    line.local_action = [&line](std::ostream& out, std::ostream& err) { return run_demo(line.demo, out, err); };
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

int perform(const command_line& line, std::ostream& out, std::ostream& err) {
  if (line.local_action) return line.local_action(out, err);
  auto client = make_client(line.daemon);
  if (!client.ok()) return report_failure(err, client.error());
  const command_context context{*std::move(client), line.json, !line.json && ::isatty(STDERR_FILENO) == 1, out, err};
  return line.action(context);
}

}  // namespace

int run_coppice(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  command_line line;
  CLI::App app("Branches running microVMs: the command line of coppiced.", "coppice");
  app.fallthrough();  // --server and --json may follow the command
  app.require_subcommand(1);
  app.footer("Example:\n  coppice branch sb-1 --tag b1\n\n" + std::string(exit_codes_help));
  add_connection_options(app, line.daemon);
  app.add_flag("--json", line.json, "Print the daemon's JSON instead of a table");
  app.set_version_flag("--version", "coppice " COPPICE_VERSION);
  add_snapshot_commands(app, line);
  add_sandbox_commands(app, line);
  add_branch_command(app, line);
  add_exec_command(app, line);
  add_demo_command(app, line);
  add_top_command(app, line);
  add_doctor_command(app, line);
  add_completion_command(app, line);
  try {
    app.parse(argc, argv);
    return perform(line, out, err);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure, out, err) == 0 ? exit_ok : exit_usage;
  } catch (const std::exception& failure) {
    err << "coppice: " << failure.what() << '\n';
    return exit_failed;
  }
}

}  // namespace coppice
