// Verification of a snapshot: the store's checksums, and the oracle if the image is of the journal guest.
#pragma once

#include <string>

#include "control_plane/control_plane.hpp"
#include "journal_guest/journal_oracle.hpp"
#include "store/store.hpp"

namespace coppice {

// Reads the whole image: blocks. Errors: not_found, io.
result<verify_report> verify_image(const snapshot_store& store, const std::string& tag);

// The same as the API tells it.
result<journal_status> to_status(const result<journal_reading>& reading);

}  // namespace coppice
