// The API of one microVM: which call is legal in which state, and what it does. Status codes and fault messages are
// those of Firecracker 1.12, with the additions of docs/firecracker.md.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "reference_vmm/machine.hpp"

namespace coppice::reference {

struct api_answer {
  unsigned status = 204;      // 200 with a body, 204, or 400 with a fault_message
  std::string body;           // JSON, or empty
  bool ends_process = false;  // a snapshot that could not be loaded leaves nothing to go on with
};

// The answer to a call that was refused.
api_answer refusal(std::string_view fault_message);

// Used by one thread. Each call is carried out before handle() returns.
class api_handler {
 public:
  api_handler(std::string id, bool use_kvm) : id_(std::move(id)), use_kvm_(use_kvm) {}

  api_answer handle(std::string_view method, std::string_view path, std::string_view body);

 private:
  enum class vm_state { not_started, running, paused };
  struct route;

  const char* state_name() const noexcept;
  api_answer describe() const;
  api_answer machine_configuration() const;

  result<void> configure_machine(const nlohmann::json& body);
  result<void> configure_boot(const nlohmann::json& body);
  result<void> act(const nlohmann::json& body);
  result<void> set_state(const nlohmann::json& body);
  result<void> create_snapshot(const nlohmann::json& body);
  result<void> load_snapshot(const nlohmann::json& body);
  result<void> hand_over_uffd(const nlohmann::json& body);

  const std::string id_;
  const bool use_kvm_;
  vm_state state_ = vm_state::not_started;
  bool configured_ = false;  // by a call that is for booting: no snapshot can be loaded any more
  machine_config config_;
  std::unique_ptr<machine> machine_;
};

}  // namespace coppice::reference
