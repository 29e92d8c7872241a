// A control plane that answers what a test put into it, and remembers what it was asked.
#pragma once

#include <sys/socket.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "control_plane/control_plane.hpp"

namespace coppice {

inline error no_such(const std::string& what) {
  return {errc::not_found, 0, "no " + what};
}

// Completes in the calling thread, or on a thread of its own (`from_another_thread`), or when released (`held`).
class fake_control_plane : public control_plane {
 public:
  ~fake_control_plane() override {
    for (auto& thread : threads_) thread.join();
  }

  std::optional<error> failure;  // every call fails with it
  bool from_another_thread = false;
  bool hold = false;           // keep completions until release()
  bool hold_branches = false;  // those of branch() only
  snapshot_status branch_status = snapshot_status::ready;
  std::map<std::string, snapshot_info> snapshots;
  std::map<std::string, sandbox_info> sandboxes;
  std::vector<snapshot_info> info_script;  // successive answers of snapshot(), before `snapshots` is asked
  std::optional<verify_report> report;
  std::optional<create_snapshot_request> created_snapshot;
  std::optional<create_sandboxes_request> created_sandboxes;
  std::optional<branch_request> branched;
  std::optional<bool> journal_reset;
  std::optional<bool> deleted_with_descendants;
  std::optional<error> refused_deletion;
  std::optional<std::uint16_t> guest_port;  // on 127.0.0.1: the agent of every guest
  std::function<void()> on_call;

  const vmm_capabilities& vmm() const noexcept override { return vmm_; }

  void list_snapshots(completion<std::vector<snapshot_info>> done) override {
    std::vector<snapshot_info> list;
    for (const auto& [tag, info] : snapshots) list.push_back(info);
    complete<std::vector<snapshot_info>>(std::move(done), list);
  }
  void snapshot(const std::string& tag, completion<snapshot_info> done) override {
    if (!info_script.empty()) {
      auto next = info_script.front();
      info_script.erase(info_script.begin());
      return complete<snapshot_info>(std::move(done), next);
    }
    complete<snapshot_info>(std::move(done), find(snapshots, tag, "snapshot"));
  }
  void create_snapshot(create_snapshot_request request, completion<snapshot_info> done) override {
    created_snapshot = request;
    snapshot_info info;
    info.tag = request.tag;
    info.memory_bytes = request.memory_bytes;
    info.vcpus = request.vcpus;
    info.bootable = true;
    complete<snapshot_info>(std::move(done), info);
  }
  void delete_snapshot(const std::string& tag, bool cascade, completion<void> done) override {
    deleted_with_descendants = cascade;
    if (refused_deletion) return done(*refused_deletion);
    complete_void(std::move(done), snapshots.erase(tag) > 0, "snapshot '" + tag + "'");
  }
  void verify_snapshot(const std::string& tag, completion<verify_report> done) override {
    if (report) return complete<verify_report>(std::move(done), *report);
    complete<verify_report>(std::move(done), no_such("snapshot '" + tag + "'"));
  }
  void list_sandboxes(completion<std::vector<sandbox_info>> done) override {
    std::vector<sandbox_info> list;
    for (const auto& [id, info] : sandboxes) list.push_back(info);
    complete<std::vector<sandbox_info>>(std::move(done), list);
  }
  void sandbox(const std::string& id, completion<sandbox_info> done) override {
    complete<sandbox_info>(std::move(done), find(sandboxes, id, "sandbox"));
  }
  void create_sandboxes(create_sandboxes_request request, completion<std::vector<sandbox_info>> done) override {
    created_sandboxes = request;
    std::vector<sandbox_info> list(request.n);
    for (unsigned i = 0; i < request.n; ++i) {
      list[i].id = "sb-" + std::to_string(i + 1);
      list[i].snapshot_tag = request.snapshot_tag;
    }
    complete<std::vector<sandbox_info>>(std::move(done), list);
  }
  void delete_sandbox(const std::string& id, completion<void> done) override {
    complete_void(std::move(done), sandboxes.erase(id) > 0, "sandbox '" + id + "'");
  }
  void branch(const std::string& id, branch_request request, completion<snapshot_info> done) override {
    branched = request;
    snapshot_info info;
    info.tag = request.tag.value_or("branch-" + id + "-1");
    info.branched_from = id;
    info.mode = request.mode;
    info.status = branch_status;
    info.pause = pause_breakdown{.total = std::chrono::microseconds(1250)};
    if (!hold_branches) return complete<snapshot_info>(std::move(done), info);
    const std::lock_guard lock(mutex_);
    held_.push_back([done = std::move(done), info] { done(info); });
    changed_.notify_all();
  }
  void journal(const std::string&, bool reset, completion<journal_status> done) override {
    journal_reset = reset;
    complete<journal_status>(std::move(done), journal_status{42, 0, std::chrono::nanoseconds(1500)});
  }
  void open_guest_socket(const std::string& id, completion<guest_socket> done) override {
    if (!sandboxes.contains(id)) return done(no_such("sandbox '" + id + "'"));
    if (!guest_port) return done(error{errc::unsupported, 0, "sandbox '" + id + "' has no guest address"});
    done(guest_socket{unique_fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), "127.0.0.1",
                      *guest_port});
  }
  void subscribe(std::function<void(const plane_event&)> listener) override {
    const std::lock_guard lock(mutex_);
    listeners_.push_back(std::move(listener));
  }
  std::string metrics_text() override { return "# HELP up\nup 1\n"; }
  void set_copy_rates(const copy_rates&) override {}
  void set_limits(const daemon_limits&) override {}
  void stop() override { release(); }

  void emit(const plane_event& event) {
    const std::lock_guard lock(mutex_);
    for (const auto& hear : listeners_) hear(event);
  }

  // Completes what was held.
  void release() {
    std::vector<std::function<void()>> due;
    {
      const std::lock_guard lock(mutex_);
      hold = false;
      due.swap(held_);
    }
    for (auto& action : due) action();
  }
  // Waits until `count` calls are held. False at the deadline.
  bool wait_for_held(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return held_.size() >= count; });
  }

 private:
  template <class T>
  static result<T> find(const std::map<std::string, T>& all, const std::string& key, const std::string& what) {
    const auto found = all.find(key);
    if (found == all.end()) return no_such(what + " '" + key + "'");
    return found->second;
  }
  template <class T>
  void complete(completion<T> done, result<T> outcome) {
    if (failure) outcome = *failure;
    run([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
  }
  void complete_void(completion<void> done, bool success, const std::string& what) {
    result<void> outcome;
    if (!success) outcome = no_such(what);
    if (failure) outcome = *failure;
    run([done = std::move(done), outcome = std::move(outcome)] { done(outcome); });
  }
  void run(std::function<void()> action) {
    if (on_call) on_call();
    std::unique_lock lock(mutex_);
    if (hold) {
      held_.push_back(std::move(action));
      changed_.notify_all();
    } else if (from_another_thread) {
      threads_.emplace_back(std::move(action));
    } else {
      lock.unlock();
      action();
    }
  }

  vmm_capabilities vmm_{"coppice-vmm", "0.1.0", true, true, false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> held_;
  std::vector<std::function<void(const plane_event&)>> listeners_;
  std::vector<std::thread> threads_;
};

}  // namespace coppice
