// The processes that the tests start: `vmm_test_child <role> ...`.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "tests/vmm/fake_vmm_server.hpp"
#include "vmm/process.hpp"

namespace coppice {
namespace {

// Says what the child inherited.
int report() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the listing's own descriptor
    const auto target = std::filesystem::read_symlink(entry.path(), gone);
    const bool own = target.string().find("/fd") != std::string::npos;
    if (!own) std::cout << "fd " << entry.path().filename().string() << " " << target.string() << "\n";
  }
  sigset_t blocked;
  sigprocmask(SIG_SETMASK, nullptr, &blocked);
  std::cout << "usr1 blocked " << sigismember(&blocked, SIGUSR1) << "\n";
  struct sigaction pipe {};
  sigaction(SIGPIPE, nullptr, &pipe);
  std::cout << "sigpipe default " << (pipe.sa_handler == SIG_DFL) << "\n";
  std::cout << "own process group " << (getpgrp() == getpid()) << "\n";
  std::cout << "terminal " << (::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC) >= 0) << "\n";
  std::cout << "policy " << sched_getscheduler(0) << std::endl;
  std::cout << "no new privileges " << prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) << std::endl;
  std::cout << "network " << std::filesystem::read_symlink("/proc/self/ns/net").string() << std::endl;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Cap")) std::cout << line << std::endl;
  }
  std::cerr << "on stderr" << std::endl;
  return 0;
}

// Says what the file holds, and whether it can be written.
int open(const char* path) {
  std::string text;
  std::ifstream(path) >> text;
  std::cout << "it holds: " << text << std::endl;
  const int fd = ::open(path, O_WRONLY);
  std::cout << "to write: " << (fd >= 0 ? "yes" : std::strerror(errno)) << std::endl;
  return 0;
}

// Touches that much memory.
int fill(std::size_t bytes) {
  const std::unique_ptr<volatile char[]> memory(new volatile char[bytes]);
  for (std::size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
  return 0;
}

[[noreturn]] void hang() {
  for (;;) ::pause();
}

// Starts a child and says its pid on stdout; dies when its stdin ends, without a destructor.
int parent(const char* self, const char* log) {
  auto child = spawn_process({self, {"hang"}, log});
  if (!child) return 1;
  std::cout << child->pid() << std::endl;
  char byte = 0;
  while (::read(0, &byte, 1) > 0) {
  }
  ::kill(::getpid(), SIGKILL);
  return 1;
}

std::string argument(int argc, char** argv, const std::string& name) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == name) return argv[i + 1];
  }
  return {};
}

// `vmm <stock|patched> --api-sock S ...`: an API that answers as Firecracker does before boot.
int vmm(int argc, char** argv) {
  const bool patched = std::string(argv[2]) == "patched";
  for (int i = 1; i < argc; ++i) std::cout << "arg " << argv[i] << std::endl;
  const fake_vmm_server server(argument(argc, argv, "--api-sock"), [patched](const std::string& request) {
    const auto refuse = [](const std::string& why) { return http_reply(400, R"({"fault_message":")" + why + "\"}"); };
    const auto path = request.substr(0, request.find(" HTTP"));
    if (path == "GET /") return http_reply(200, R"({"id":"x","state":"Not started","app_name":"fake"})");
    if (path == "GET /version") return http_reply(200, R"({"firecracker_version":"9.8.7"})");
    if (path == "PUT /exit") ::_exit(7);
    if (path == "PUT /abort") ::kill(::getpid(), SIGTERM);
    if (path == "PUT /snapshot/create") return refuse(patched ? "not before boot" : "unknown variant `VmstateOnly`");
    if (path == "PUT /snapshot/load") return refuse(patched ? "invalid type: string" : "unknown field `shared`");
    if (path == "PUT /uffd/wp" && patched) return refuse("missing field `socket`");
    return refuse("Invalid request method and/or path: " + path + ".");
  });
  hang();
}

int run(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  if (role == "exit") return std::stoi(argv[2]);
  if (role == "signal") return ::kill(::getpid(), std::stoi(argv[2]));
  if (role == "hang") hang();
  if (role == "fill") return fill(std::stoull(argv[2]));
  if (role == "report") return report();
  if (role == "open") return open(argv[2]);
  if (role == "parent") return parent(argv[0], argv[2]);
  if (role == "vmm") return vmm(argc, argv);
  std::cerr << "no such role: " << role << std::endl;
  return 64;
}

}  // namespace
}  // namespace coppice

int main(int argc, char** argv) {
  return coppice::run(argc, argv);
}
