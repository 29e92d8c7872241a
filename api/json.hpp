// JSON ⇄ the control plane's structs: the only place that knows the field names. Pure functions, thread-safe.
// The names are those of forkd's controller 0.5; fields that it does not have are additions of ours.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "control_plane/control_plane.hpp"

namespace coppice {

nlohmann::json to_json(const snapshot_info& snapshot);
nlohmann::json details_to_json(const snapshot_info& snapshot);  // with its lineage
nlohmann::json to_json(const sandbox_info& sandbox);
nlohmann::json to_json(const verify_report& report);
nlohmann::json to_json(const journal_status& status);
nlohmann::json to_json(const vmm_capabilities& vmm);
// {"error": "...", "code": "not_found"}
nlohmann::json to_json(const error& failure);

// Text of `value`; bytes that are not UTF-8 are replaced, so that this never fails.
std::string dump(const nlohmann::json& value);

// The bodies of POST. An empty body counts as {}; null counts as absent. Errors: invalid_argument, saying where the
// JSON breaks off, or which field is wrong and which there are.
result<create_snapshot_request> parse_create_snapshot(std::string_view body);
result<create_sandboxes_request> parse_create_sandboxes(std::string_view body);
// `otherwise`: the mode of a branch that names none.
result<branch_request> parse_branch(std::string_view body, branch_mode otherwise = branch_mode::live);

}  // namespace coppice
