// The parts below the actors, with a tap: what the actors got from them can be used from outside, while they rest.
#pragma once

#include <memory>

#include "copy_engine/copy_engine.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice::bench {

// Passes everything on to the host it wraps. The API of the VMM that was started last is kept for the bench, which must
// not use it after that VMM has ended.
class tapped_host final : public vmm_host {
 public:
  explicit tapped_host(std::unique_ptr<vmm_host> inner) : inner_(std::move(inner)) {}

  const vmm_capabilities& capabilities() const noexcept override { return inner_->capabilities(); }
  result<std::unique_ptr<running_vmm>> start(const start_vmm_request& request, exit_callback on_exit) override {
    auto started = inner_->start(request, std::move(on_exit));
    if (started) last_api_ = &(*started)->api();
    return started;
  }
  void receive_uffd(const std::filesystem::path& socket, std::chrono::milliseconds deadline,
                    uffd_callback done) override {
    inner_->receive_uffd(socket, deadline, std::move(done));
  }
  api_channel& last_api() { return *last_api_; }

 private:
  std::unique_ptr<vmm_host> inner_;
  api_channel* last_api_ = nullptr;
};

// The same for the engine: the memory that was attached last.
class tapped_engine final : public copy_engine {
 public:
  explicit tapped_engine(std::unique_ptr<copy_engine> inner) : inner_(std::move(inner)) {}

  result<std::unique_ptr<protected_memory>> attach(uffd_handover handover,
                                                   std::shared_ptr<guest_memory> memory) override {
    auto attached = inner_->attach(std::move(handover), std::move(memory));
    if (attached) last_memory_ = attached->get();
    return attached;
  }
  copy_engine_stats stats() const override { return inner_->stats(); }
  void set_rates(const copy_rates& rates) override { inner_->set_rates(rates); }
  protected_memory& last_memory() { return *last_memory_; }

 private:
  std::unique_ptr<copy_engine> inner_;
  protected_memory* last_memory_ = nullptr;
};

}  // namespace coppice::bench
