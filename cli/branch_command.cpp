#include "cli/branch_command.hpp"

#include <chrono>
#include <vector>

#include "base/http_status.hpp"
#include "base/units.hpp"
#include "cli/branch_trace.hpp"
#include "cli/signal_file.hpp"
#include "cli/snapshot_commands.hpp"

namespace coppice {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds branch_poll_interval{100};

using answer_to_branch = interruptible<result<json>>;

// One branch, from the request to the snapshot that is ready.
class branch_run {
 public:
  branch_run(const command_context& context, const branch_arguments& arguments)
      : context_(context), arguments_(arguments) {}

  int run();

 private:
  answer_to_branch ask();
  answer_to_branch wait_until_written(json branch);
  int end_interrupted(int signal, const std::string& tag, bool begun) const;
  int finish_branch(const result<json>& branch) const;
  int finish_trace(const result<json>& branch, int code) const;
  void show_progress(const json& branch) const;
  void wipe_progress() const;
  void sample(const json& branch);

  const command_context& context_;
  const branch_arguments& arguments_;
  const std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
  const signal_file signals_{SIGINT, SIGTERM};
  std::vector<copy_sample> samples_;
};

// Posted without waiting even where we wait, so that the progress can be shown.
answer_to_branch branch_run::ask() {
  json body = {{"wait", false}};
  if (!arguments_.mode.empty()) body["mode"] = arguments_.mode;
  if (!arguments_.tag.empty()) body["tag"] = arguments_.tag;
  return call_unless_interrupted<result<json>>(
      signals_, [client = patient(context_), path = sandbox_path(arguments_.id) + "/branch", body] {
        return client.post(path, body);
      });
}

void branch_run::show_progress(const json& branch) const {
  if (!context_.progress) return;
  const json progress = branch.value("progress", json::object());
  const auto total = number(progress, "total_pages") * page_size;
  const auto copied = number(progress, "copied_pages") * page_size;
  context_.err << "\rcopying " << shown(branch, "tag") << ": " << format_bytes(copied) << " of " << format_bytes(total)
               << "   " << std::flush;
}

void branch_run::wipe_progress() const {
  if (context_.progress) context_.err << '\r' << std::string(72, ' ') << '\r' << std::flush;
}

void branch_run::sample(const json& branch) {
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - asked_);
  samples_.push_back({since, number(branch.value("progress", json::object()), "copied_pages") * page_size});
}

// Polls until the snapshot is no longer being written: it is ready then, or failed. An error if it vanished.
answer_to_branch branch_run::wait_until_written(json branch) {
  const std::string path = snapshot_path(shown(branch, "tag")) + "/info";
  while (shown(branch, "status") == "writing") {
    show_progress(branch);
    sample(branch);
    if (const int signal = signals_.wait(branch_poll_interval); signal != 0) return {std::nullopt, signal};
    auto next =
        call_unless_interrupted<result<json>>(signals_, [client = context_.client, path] { return client.get(path); });
    if (!next.value || !next.value->ok()) return next;
    branch = **std::move(next.value);
  }
  sample(branch);
  return {result<json>(std::move(branch)), 0};
}

// Asks the daemon to give up the snapshot of `id` that is being written; what became of it, as a sentence. `tag`: empty
// if it isn't known. Errors: as the daemon says them, and not_found or conflict if there is not exactly one.
result<std::string> give_up_branch(const api_client& client, const std::string& id, const std::string& tag) {
  auto list = tag.empty() ? client.get("/v1/snapshots") : client.get(snapshot_path(tag) + "/info");
  if (!list.ok()) return std::move(list).error();
  std::vector<std::string> found;
  for (const json& each : list->is_array() ? *list : json::array({*list})) {
    if (shown(each, "branched_from") != id) continue;
    if (shown(each, "status") == "writing") found.push_back(shown(each, "tag"));
    if (!tag.empty() && found.empty()) return "branch " + tag + " is " + shown(each, "status") + " already";
  }
  if (found.empty()) return error{errc::not_found, 0, "no such branch of sandbox '" + id + "' is in the making"};
  if (found.size() > 1) return error{errc::conflict, 0, "several of sandbox '" + id + "' are in the making"};
  auto removed = client.remove(snapshot_path(found.front()));
  if (!removed.ok()) return std::move(removed).error();
  return "branch " + found.front() + " is cancelled";
}

// A second signal ends the waiting for the daemon's answer, too. `begun`: the daemon said that it writes.
int branch_run::end_interrupted(int signal, const std::string& tag, bool begun) const {
  wipe_progress();
  const auto outcome = call_unless_interrupted<result<std::string>>(
      signals_, [client = context_.client, id = arguments_.id, tag] { return give_up_branch(client, id, tag); });
  std::string told;
  if (outcome.value && outcome.value->ok()) {
    told = **outcome.value;
  } else {
    told = (tag.empty() ? "the branch" : "branch " + tag) + (begun ? " goes on: " : " goes on, if it was begun: ") +
           (outcome.value ? outcome.value->error().message() : "coppiced has not answered yet") +
           "; see coppice snapshot ls";
  }
  return report_failure(context_.err, context_.json, {errc::cancelled, 0, "interrupted: " + told},
                        exit_signalled + signal);
}

int branch_run::finish_branch(const result<json>& branch) const {
  if (!branch.ok() || shown(*branch, "status") != "failed") {
    return finish_snapshot(context_, branch, arguments_.tag_only);
  }
  constexpr unsigned unknown = 500;  // of a daemon that doesn't tell the kind
  const auto kind = errc_of_answer(unknown, branch->value("code", ""));
  return report_failure(context_, {kind, 0, "branch " + shown(*branch, "tag") + " failed: " + shown(*branch, "error")});
}

// Of a branch that was asked for with --trace; adds to `code` what went wrong here.
int branch_run::finish_trace(const result<json>& branch, int code) const {
  if (arguments_.trace_file.empty()) return code;
  const auto written = branch.ok() ? write_branch_trace(arguments_.trace_file, *branch, samples_)
                                   : result<void>(error{errc::unsupported, 0,
                                                        "no trace is written: the daemon tells nothing of this "
                                                        "branch"});
  if (written.ok()) return code;
  const int failed = report_failure(context_, written.error());
  return code == exit_ok ? failed : code;
}

int branch_run::run() {
  auto answer = ask();
  if (!answer.value) return end_interrupted(answer.signal, arguments_.tag, false);
  if (answer.value->ok() && arguments_.wait) {
    const std::string tag = shown(**answer.value, "tag");
    answer = wait_until_written(**std::move(answer.value));
    if (!answer.value) return end_interrupted(answer.signal, tag, true);
    wipe_progress();
  }
  return finish_trace(*answer.value, finish_branch(*answer.value));
}

}  // namespace

int branch_sandbox(const command_context& context, const branch_arguments& arguments) {
  return branch_run(context, arguments).run();
}

}  // namespace coppice
