#include "actors/error_bridge.hpp"

#include <caf/atom.hpp>
#include <caf/exit_reason.hpp>
#include <caf/make_message.hpp>
#include <caf/message.hpp>
#include <caf/sec.hpp>
#include <caf/to_string.hpp>
#include <string>

namespace coppice {
namespace {
const auto category = caf::atom("coppice");
}

caf::error to_caf(const error& failure) {
  // Code 0 means "no error" to CAF, whatever the category.
  return {static_cast<std::uint8_t>(static_cast<int>(failure.code) + 1), category,
          caf::make_message(failure.context, failure.sys_errno)};
}

error from_caf(const caf::error& failure) {
  if (!failure)
    return {errc::unavailable, 0, "it ended meanwhile"};  // an actor that quit in order; category() of it crashes
  if (failure.category() == category && failure.context().match_elements<std::string, int>())
    return {static_cast<errc>(failure.code() - 1), failure.context().get_as<int>(1),
            failure.context().get_as<std::string>(0)};
  if (failure == caf::sec::request_timeout) return {errc::deadline_exceeded, 0, "no answer in time"};
  if (failure == caf::sec::request_receiver_down) return {errc::unavailable, 0, "it ended meanwhile"};
  if (failure.category() == caf::error(caf::exit_reason::kill).category())
    return {errc::unavailable, 0, "it was ended"};
  return {errc::internal, 0, "an actor failed: " + caf::to_string(failure)};
}

}  // namespace coppice
