#include "reference_vmm/fault_injection.hpp"

#include <charconv>

namespace coppice::reference {
namespace {

error malformed(std::string_view text) {
  return error{errc::invalid_argument, 0,
               "'" + std::string(text) +
                   "' is no fault; write '<METHOD> <path>[#nth]:<delay=ms|delay-after=ms|fail|hang|exit>'"};
}

bool parse_whole(std::string_view text, unsigned& value) {
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc{} && end == text.data() + text.size();
}

bool parse_action(std::string_view text, fault& into) {
  const std::size_t equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  if (equals != std::string_view::npos) {
    unsigned milliseconds = 0;
    if ((name != "delay" && name != "delay-after") || !parse_whole(text.substr(equals + 1), milliseconds)) return false;
    into.kind = name == "delay" ? fault_kind::delay : fault_kind::delay_after;
    into.wait = std::chrono::milliseconds(milliseconds);
    return true;
  }
  if (name == "fail") {
    into.kind = fault_kind::fail;
  } else if (name == "hang") {
    into.kind = fault_kind::hang;
  } else if (name == "exit") {
    into.kind = fault_kind::exit;
  } else {
    return false;
  }
  return true;
}

}  // namespace

result<fault> parse_fault(std::string_view text) {
  fault made;
  const std::size_t space = text.find(' '), colon = text.rfind(':');
  if (space == std::string_view::npos || colon == std::string_view::npos || colon < space) return malformed(text);
  made.method = text.substr(0, space);
  std::string_view path = text.substr(space + 1, colon - space - 1);
  if (const std::size_t hash = path.rfind('#'); hash != std::string_view::npos) {
    if (!parse_whole(path.substr(hash + 1), made.nth) || made.nth == 0) return malformed(text);
    path = path.substr(0, hash);
  }
  made.path = path;
  const bool method_known = made.method == "GET" || made.method == "PUT" || made.method == "PATCH";
  if (!method_known || !path.starts_with('/') || !parse_action(text.substr(colon + 1), made)) return malformed(text);
  return made;
}

fault_plan::fault_plan(std::vector<fault> faults) {
  for (fault& each : faults) faults_.push_back({std::move(each), 0});
}

std::vector<fault> fault_plan::strike(std::string_view method, std::string_view path) {
  const std::lock_guard lock(mutex_);
  std::vector<fault> striking;
  for (counted& each : faults_) {
    if (each.what.method != method || each.what.path != path) continue;
    ++each.calls;
    if (each.what.nth == 0 || each.what.nth == each.calls) striking.push_back(each.what);
  }
  return striking;
}

}  // namespace coppice::reference
