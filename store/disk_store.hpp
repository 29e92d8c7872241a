// snapshot_store on a file system.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "store/store_state.hpp"

namespace coppice {

// See snapshot_store. Made by open_store().
class disk_store final : public snapshot_store {
 public:
  disk_store(std::shared_ptr<store_state> state, std::vector<std::string> removed, std::vector<std::string> unreadable)
      : state_(std::move(state)), removed_at_open_(std::move(removed)), unreadable_at_open_(std::move(unreadable)) {}

  const std::filesystem::path& vmstate_folder() const noexcept override {
    return state_->vmstates.empty() ? state_->snapshots : state_->vmstates;
  }
  const std::vector<std::string>& removed_at_open() const noexcept override { return removed_at_open_; }
  const std::vector<std::string>& unreadable_at_open() const noexcept override { return unreadable_at_open_; }
  result<std::unique_ptr<staged_snapshot>> reserve(const std::string& tag, std::uint64_t memory_bytes) override;
  result<snapshot_record> publish(std::unique_ptr<staged_snapshot> staged, snapshot_record record) override;
  std::vector<snapshot_record> list() const override;
  result<snapshot_record> find(const std::string& tag) const override;
  result<std::shared_ptr<const snapshot_record>> pin(const std::string& tag) override;
  result<void> remove(const std::string& tag) override;
  result<verify_result> verify(const std::string& tag) const override;
  store_usage usage() const override;

 private:
  // REQUIRES: state_->mutex held. Errors: no_space, io.
  result<void> check_space(const std::string& tag, std::uint64_t memory_bytes) const;

  std::shared_ptr<store_state> state_;
  std::vector<std::string> removed_at_open_;
  std::vector<std::string> unreadable_at_open_;
};

}  // namespace coppice
