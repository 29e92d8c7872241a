// Fakes of the seams below the actors. All of them run on the test's own thread, and do what the test told them to.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/worker_pool.hpp"
#include "copy_engine/copy_engine.hpp"
#include "store/store.hpp"
#include "tests/support/temp_dir.hpp"
#include "vmm/vmm_host.hpp"

namespace coppice::fakes {

// What a fake does with the next call of a kind.
enum class conduct {
  ok,
  fail,   // answers with an error
  never,  // never answers (the effect does not happen)
  late,   // carried out, but the answer is kept until release()
  die,    // the VM dies instead of answering
};

// What everything of one test shares: orders, and what came in.
struct world {
  std::map<std::string, conduct> orders;  // by call: "pause", "snapshot", "prearm", "reserve", ...
  std::vector<std::string> calls;         // in the order in which they came
  std::vector<std::function<void()>> late_answers;
  std::function<void()> on_call;                             // e.g. to advance the time
  std::map<std::string, vmm_host::uffd_callback> handovers;  // awaited, by VM
  std::function<void()> kill_vm;                             // set by the host: ends the last VM
  unsigned stagings = 0;                                     // alive
  unsigned live_sessions = 0;                                // begun, neither aborted nor done
  unsigned protections = 0;                                  // sessions that hold RAM protected
  std::map<std::string, std::string> vm_states;              // by VM id
  std::uint64_t settled = 0;
  bool waits_for_limit = false;  // a copy
  std::string refusal;           // that a VMM's failures answer, if not empty

  conduct order(const std::string& call) {
    calls.push_back(call);
    if (on_call) on_call();
    const auto found = orders.find(call);
    return found == orders.end() ? conduct::ok : found->second;
  }
  void release() {
    for (auto& answer : std::exchange(late_answers, {})) answer();
  }
  bool called(const std::string& call) const { return std::find(calls.begin(), calls.end(), call) != calls.end(); }
  auto count(const std::string& call) const { return std::count(calls.begin(), calls.end(), call); }
};
using world_ptr = std::shared_ptr<world>;

inline error refusal(const std::string& call) {
  return {errc::io, 0, "told to fail " + call};
}

// Runs tasks when the test says so, in order.
class manual_executor final : public executor {
 public:
  void post(std::function<void()> task) override { tasks_.push_back(std::move(task)); }
  std::size_t queued() const override { return tasks_.size(); }
  bool run_one() {
    if (held || tasks_.empty()) return false;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    task();
    return true;
  }
  bool held = false;  // the disk hangs

 private:
  std::deque<std::function<void()>> tasks_;
};

class fake_session final : public copy_session {
 public:
  explicit fake_session(world_ptr with) : with_(std::move(with)) { ++with_->live_sessions; }
  ~fake_session() override { end(); }

  void prearm(completion done) override {
    with_->protections += std::exchange(protected_, true) ? 0U : 1U;
    act("prearm", std::move(done), result<void>{});
  }
  void rearm(completion done) override { act("rearm", std::move(done), result<void>{}); }
  void copy(unique_fd, copy_completion done) override {
    copy_result copied;
    copied.summary.bulk_pages = 256;
    copied.chunk_checksums = {7};
    act(
        "copy",
        [this, alive = std::weak_ptr<bool>(alive_), done](result<copy_result> outcome) {
          if (outcome && !alive.expired()) end();  // a late answer may come after the session's end
          done(std::move(outcome));
        },
        result<copy_result>(copied));
  }
  void abort(std::function<void()> done) override {
    with_->calls.push_back("abort");
    end();
    done();
  }
  copy_progress progress() const noexcept override { return {with_->settled, 256, with_->waits_for_limit}; }

 private:
  template <class Done, class Outcome>
  void act(const std::string& call, Done done, Outcome outcome) {
    switch (with_->order(call)) {
      case conduct::ok:
        return done(std::move(outcome));
      case conduct::fail:
        return done(refusal(call));
      case conduct::late:
        with_->late_answers.push_back([done, outcome] { done(outcome); });
        return;
      case conduct::die:
        return with_->kill_vm();
      case conduct::never:
        return;
    }
  }
  void end() {
    if (!std::exchange(ended_, true)) --with_->live_sessions;
    if (std::exchange(protected_, false)) --with_->protections;
  }
  world_ptr with_;
  bool protected_ = false;
  bool ended_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class fake_protected_memory final : public protected_memory {
 public:
  explicit fake_protected_memory(world_ptr with) : with_(std::move(with)) {}
  result<std::unique_ptr<copy_session>> begin() override {
    if (with_->order("begin") == conduct::fail) return refusal("begin");
    return std::unique_ptr<copy_session>(std::make_unique<fake_session>(with_));
  }

 private:
  world_ptr with_;
};

class fake_engine final : public copy_engine {
 public:
  explicit fake_engine(world_ptr with) : with_(std::move(with)) {}
  result<std::unique_ptr<protected_memory>> attach(uffd_handover, std::shared_ptr<guest_memory>) override {
    if (with_->order("attach") == conduct::fail) return refusal("attach");
    return std::unique_ptr<protected_memory>(std::make_unique<fake_protected_memory>(with_));
  }
  copy_engine_stats stats() const override { return {}; }
  void set_rates(const copy_rates&) override {}

 private:
  world_ptr with_;
};

// A VMM that keeps the state of its guest, and writes the files that it is asked for.
class fake_vmm final : public running_vmm, public api_channel {
 public:
  fake_vmm(world_ptr with, std::string id, vmm_host::exit_callback on_exit)
      : with_(std::move(with)), id_(std::move(id)), on_exit_(std::move(on_exit)) {
    with_->vm_states[id_] = "Not started";
  }
  ~fake_vmm() override {
    on_exit_ = nullptr;
    with_->vm_states.erase(id_);
  }
  pid_t pid() const noexcept override { return 4242; }
  api_channel& api() noexcept override { return *this; }
  void kill() noexcept override { exit({0, 9}); }
  void exit(exit_status status) {
    with_->vm_states[id_] = "gone";
    if (auto told = std::exchange(on_exit_, nullptr)) told(status);
  }

  void call(api_request request, std::chrono::milliseconds, completion done) override {
    const auto name = name_of(request);
    if (with_->vm_states[id_] == "gone") return done(error{errc::unavailable, 0, "connection broke"});
    switch (with_->order(name)) {
      case conduct::ok:
        effect(name, request);
        return done(api_reply{204, {}});
      case conduct::fail:
        return done(error{errc::conflict, 0, with_->refusal.empty() ? "told to refuse " + name : with_->refusal});
      case conduct::late:
        effect(name, request);
        with_->late_answers.push_back([done] { done(api_reply{204, {}}); });
        return;
      case conduct::die:
        return exit({0, 11});
      case conduct::never:
        return;
    }
  }

 private:
  static std::string name_of(const api_request& request) {
    if (request.path == "/vm") return request.body.find("Paused") != std::string::npos ? "pause" : "resume";
    if (request.path == "/snapshot/create") return "snapshot";
    if (request.path == "/snapshot/load") return "load";
    if (request.path == "/uffd/wp") return "uffd";
    if (request.path == "/") return "describe";
    if (request.path == "/actions") return "start";
    return request.path;
  }
  void effect(const std::string& name, const api_request& request) {
    auto& state = with_->vm_states[id_];
    if (name == "pause" || name == "load") state = "Paused";
    if (name == "resume" || name == "start") state = "Running";
    if (name == "snapshot") take_snapshot(nlohmann::json::parse(request.body));
    if (name == "uffd" && with_->order("handover") != conduct::never) {
      if (auto handed = std::exchange(with_->handovers[id_], nullptr)) handed(uffd_handover{});
    }
  }
  void take_snapshot(const nlohmann::json& body) {
    const std::string kind = body.at("snapshot_type");
    with_->calls.push_back(kind);
    if (kind == "VmstateOnly") return;
    const std::filesystem::path memory = body.at("mem_file_path").get<std::string>();
    std::ofstream(memory, std::ios::app).close();
    std::filesystem::resize_file(memory, mib);
  }

  world_ptr with_;
  std::string id_;
  vmm_host::exit_callback on_exit_;
};

class fake_host final : public vmm_host {
 public:
  explicit fake_host(world_ptr with) : with_(std::move(with)) {
    can = {"fake-vmm", "1", true, true, true};
    with_->kill_vm = [this] {
      if (!vmms_.empty()) vmms_.back()->exit({0, 11});
    };
  }
  const vmm_capabilities& capabilities() const noexcept override { return can; }
  result<std::unique_ptr<running_vmm>> start(const start_vmm_request& request, exit_callback on_exit) override {
    if (with_->order("spawn") == conduct::fail) return refusal("spawn");
    if (starts_until_failure > 0 && --starts_until_failure == 0) return refusal("spawn");
    auto vmm = std::make_unique<fake_vmm>(with_, request.id, std::move(on_exit));
    vmms_.push_back(vmm.get());
    return std::unique_ptr<running_vmm>(std::move(vmm));
  }
  void receive_uffd(const std::filesystem::path& socket, std::chrono::milliseconds, uffd_callback done) override {
    with_->handovers[socket.parent_path().parent_path().filename()] =
        std::move(done);  // each VM has a folder of its name
  }
  vmm_capabilities can;
  unsigned starts_until_failure = 0;

 private:
  world_ptr with_;
  std::vector<fake_vmm*> vmms_;  // tests have few, and use the last one only while it lives
};

// A store in memory, with the image files in a temporary folder.
class fake_store final : public snapshot_store {
 public:
  explicit fake_store(world_ptr with) : with_(std::move(with)) { add_base("base"); }

  void add_base(const std::string& tag, std::vector<std::uint64_t> checksums = {}, const std::string& vmm = {}) {
    snapshot_record record;
    record.tag = tag;
    record.vmm = vmm;
    record.directory = folder_.path() / tag;
    record.memory_bytes = mib;
    record.vcpus = 1;
    record.memory_chunk_checksums = std::move(checksums);
    std::filesystem::create_directories(record.directory);
    std::ofstream(record.memory_path()).close();
    std::filesystem::resize_file(record.memory_path(), mib);
    records_[tag] = std::make_shared<const snapshot_record>(record);
  }

  const std::filesystem::path& vmstate_folder() const noexcept override { return folder_.path(); }
  const std::vector<std::string>& removed_at_open() const noexcept override { return none_; }
  const std::vector<std::string>& unreadable_at_open() const noexcept override { return none_; }
  result<std::unique_ptr<staged_snapshot>> reserve(const std::string& tag, std::uint64_t bytes) override;
  result<snapshot_record> publish(std::unique_ptr<staged_snapshot> staged, snapshot_record record) override;
  std::vector<snapshot_record> list() const override {
    std::vector<snapshot_record> all;
    for (const auto& [tag, record] : records_) all.push_back(*record);
    if (on_list) on_list();
    return all;
  }
  result<snapshot_record> find(const std::string& tag) const override {
    const auto found = records_.find(tag);
    if (found == records_.end()) return error{errc::not_found, 0, "no snapshot '" + tag + "'"};
    return *found->second;
  }
  result<std::shared_ptr<const snapshot_record>> pin(const std::string& tag) override {
    const auto found = records_.find(tag);
    if (found == records_.end()) return error{errc::not_found, 0, "no snapshot '" + tag + "'"};
    return found->second;
  }
  result<void> remove(const std::string& tag) override {
    const auto found = records_.find(tag);
    if (found == records_.end()) return error{errc::not_found, 0, "no snapshot '" + tag + "'"};
    if (found->second.use_count() > 1) return error{errc::conflict, 0, "snapshot '" + tag + "' is in use"};
    std::filesystem::remove_all(found->second->directory);
    records_.erase(found);
    return {};
  }
  result<verify_result> verify(const std::string&) const override { return verify_result{1, {}, true}; }
  coppice::store_usage usage() const override { return {}; }

  std::filesystem::path folder() const { return folder_.path(); }

  std::function<void()> on_list;  // what goes on meanwhile, when the answer of a list() is made and not given

 private:
  world_ptr with_;
  temp_dir folder_;
  std::map<std::string, std::shared_ptr<const snapshot_record>> records_;
  std::vector<std::string> none_;
};

class fake_staging final : public staged_snapshot {
 public:
  fake_staging(world_ptr with, std::string tag, std::filesystem::path directory)
      : with_(std::move(with)), tag_(std::move(tag)), directory_(std::move(directory)) {
    ++with_->stagings;
  }
  ~fake_staging() override {
    --with_->stagings;
    if (!published) std::filesystem::remove_all(directory_);
  }
  const std::string& tag() const noexcept override { return tag_; }
  std::filesystem::path directory() const override { return directory_; }
  std::filesystem::path memory_path() const override { return directory_ / "memory.bin"; }
  std::filesystem::path vmstate_path() const override { return directory_ / "vmstate"; }
  bool published = false;

 private:
  world_ptr with_;
  std::string tag_;
  std::filesystem::path directory_;
};

inline result<std::unique_ptr<staged_snapshot>> fake_store::reserve(const std::string& tag, std::uint64_t bytes) {
  if (records_.contains(tag)) return error{errc::already_exists, 0, "snapshot '" + tag + "' exists"};
  if (with_->order("reserve") == conduct::fail) return error{errc::no_space, 0, "told to have no space"};
  const auto directory = folder_.path() / (".staging-" + tag);
  std::filesystem::create_directories(directory);
  auto staged = std::make_unique<fake_staging>(with_, tag, directory);
  std::ofstream(staged->memory_path()).close();
  std::filesystem::resize_file(staged->memory_path(), bytes);
  return std::unique_ptr<staged_snapshot>(std::move(staged));
}

inline result<snapshot_record> fake_store::publish(std::unique_ptr<staged_snapshot> staged, snapshot_record record) {
  if (with_->order("publish") == conduct::fail) return error{errc::no_space, 0, "told to have no space"};
  static_cast<fake_staging&>(*staged).published = true;
  record.directory = folder_.path() / record.tag;
  std::filesystem::rename(staged->directory(), record.directory);
  records_[record.tag] = std::make_shared<const snapshot_record>(record);
  return record;
}

}  // namespace coppice::fakes
