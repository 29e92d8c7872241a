// coppice-vmm: a small KVM monitor with Firecracker's API, so that all of Coppice runs where no suitable Firecracker is
// at hand, and misbehaves on demand for tests.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "reference_vmm/api_server.hpp"

namespace {

using namespace coppice;
using namespace coppice::reference;

struct settings {
  std::string api_socket;
  std::string id = "anonymous-instance";
  std::vector<std::string> faults;
  bool no_seccomp = false;
  bool no_kvm = false;
};

int run(const settings& chosen) {
  std::vector<fault> faults;
  for (const std::string& text : chosen.faults) {
    auto parsed = parse_fault(text);
    if (!parsed) {
      std::cerr << "coppice-vmm: --fault: " << parsed.error().message() << '\n';
      return 2;
    }
    faults.push_back(std::move(*parsed));
  }
  const bool use_kvm = !chosen.no_kvm && kvm_available();
  if (!use_kvm) {
    std::printf("coppice-vmm: %s: only the journal guest runs, on threads instead of vCPUs\n",
                chosen.no_kvm ? "--no-kvm" : "no access to /dev/kvm");
    std::fflush(stdout);
  }
  api_handler handler(chosen.id, use_kvm);
  fault_plan plan(std::move(faults));
  const auto served = serve_api(chosen.api_socket, handler, plan);
  if (served) return 0;
  std::cerr << "coppice-vmm: " << served.error().message() << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  settings chosen;
  CLI::App app("A small KVM monitor with Firecracker's API, for Coppice's tests and demo.", "coppice-vmm");
  app.footer("Example:\n  coppice-vmm --api-sock /run/vm1.sock --fault 'PATCH /vm#2:hang'");
  app.add_option("--api-sock", chosen.api_socket, "Path of the API's unix socket; nothing may be there yet")
      ->required();
  app.add_option("--id", chosen.id, "Id of the microVM, as GET / tells it");
  app.add_option("--fault", chosen.faults,
                 "Misbehave: '<METHOD> <path>[#nth]:<delay=ms|delay-after=ms|fail|hang|exit>'; may be repeated");
  app.add_flag("--no-seccomp", chosen.no_seccomp, "Accepted as Firecracker accepts it: there is no filter to turn off");
  app.add_flag("--no-kvm", chosen.no_kvm, "Run the journal on threads, as on a machine without /dev/kvm");
  app.set_version_flag("--version", "coppice-vmm " COPPICE_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& failure) {
    return app.exit(failure) == 0 ? 0 : 2;
  }
  return run(chosen);
}
