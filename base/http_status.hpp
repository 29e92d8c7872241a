// The one map between errors and HTTP status codes, used by the server and, backwards, by the client.
#pragma once

#include <string_view>

#include "base/error.hpp"

namespace coppice {

// The status that answers a failure of this kind.
unsigned http_status(errc code) noexcept;

// The kind of failure behind an answer: `code` (the body's "code", may be empty) if it is one of ours, else what the
// status says.
errc errc_of_answer(unsigned status, std::string_view code) noexcept;

}  // namespace coppice
