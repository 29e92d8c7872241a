// manifest.json: a snapshot_record as Protobuf JSON.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "store/store.hpp"

namespace coppice {

inline constexpr unsigned manifest_format_version = 1;

// The record as readable JSON; `directory` isn't part of it.
std::string manifest_to_json(const snapshot_record& record);

// The record of the snapshot in `directory`. Errors: unsupported (written by a newer coppice), corrupt (no manifest, or
// values that can't be).
result<snapshot_record> manifest_from_json(std::string_view json, const std::filesystem::path& directory);

}  // namespace coppice
