// The one place where coppice::error and caf::error meet.
#pragma once

#include <caf/error.hpp>

#include "base/error.hpp"

namespace coppice {

// A caf::error of our category that carries all of `failure`.
caf::error to_caf(const error& failure);

// The way back. CAF's own errors: request_timeout becomes deadline_exceeded, a receiver that is gone unavailable, all
// others internal.
error from_caf(const caf::error& failure);

}  // namespace coppice
