#include "cli/coppice.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <functional>

#include "base/units.hpp"
#include "cli/client_options.hpp"
#include "cli/commands.hpp"
#include "cli/demo.hpp"
#include "cli/exit_codes.hpp"
#include "cli/size_option.hpp"

namespace coppice {
namespace {

// What the command line says. Each subcommand stores what is to be done in `action`.
struct command_line {
  client_options daemon;
  bool json = false;
  std::string name;  // TAG or ID
  std::string memory = "256M";
  unsigned n = 1;
  bool no_wait = false;
  snapshot_create_arguments create;
  branch_arguments branch;
  demo_options demo;
  std::function<int(const command_context&)> action;
  bool runs_demo = false;
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
  create->callback([&line] {
    line.create.memory_bytes = *parse_bytes(line.memory);
    line.action = [&line](const auto& context) { return create_snapshot(context, line.create); };
  });
  CLI::App* list = add(*group, "ls", "List the snapshots", "coppice snapshot ls --json");
  list->callback([&line] { line.action = list_snapshots; });
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
  name_argument(create, line, "TAG");
  create->add_option("-n", line.n, "How many")->capture_default_str();
  create->callback(
      [&line] { line.action = [&line](const auto& context) { return create_sandboxes(context, line.name, line.n); }; });
  CLI::App* list = add(*group, "ls", "List the sandboxes", "coppice sandbox ls");
  list->callback([&line] { line.action = list_sandboxes; });
  CLI::App* info = add(*group, "info", "Show one sandbox", "coppice sandbox info sb-1");
  name_argument(info, line, "ID");
  info->callback([&line] { line.action = [&line](const auto& context) { return show_sandbox(context, line.name); }; });
  CLI::App* remove = add(*group, "rm", "End a sandbox", "coppice sandbox rm sb-1");
  name_argument(remove, line, "ID");
  remove->callback(
      [&line] { line.action = [&line](const auto& context) { return remove_sandbox(context, line.name); }; });
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
  branch->add_flag("--no-wait", line.no_wait, "Return when the guest runs again, while memory is still being copied");
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
    line.runs_demo = true;
  });
}

void add_connection_options(CLI::App& app, client_options& daemon) {
  app.add_option("--server", daemon.server, "The daemon's address: http://, https:// or unix:/PATH")
      ->envname("COPPICE_SERVER")
      ->capture_default_str();
  app.add_option("--token-file", daemon.token_file, "File with the token to send (default: $COPPICE_TOKEN)");
  app.add_option("--tls-ca", daemon.tls.ca, "CA (PEM) of the daemon's certificate (default: the system's)");
  CLI::Option* certificate =
      app.add_option("--tls-cert", daemon.tls.certificate, "Certificate (PEM) to show the daemon");
  CLI::Option* key = app.add_option("--tls-key", daemon.tls.key, "PEM key of --tls-cert");
  certificate->needs(key);
  key->needs(certificate);
}

int perform(const command_line& line, std::ostream& out, std::ostream& err) {
  if (line.runs_demo) return run_demo(line.demo, out, err);
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
  add_demo_command(app, line);
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
