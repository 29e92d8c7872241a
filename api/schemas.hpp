// The shapes of the API's bodies.
#pragma once

#include <nlohmann/json.hpp>

namespace coppice {

// JSON Schemas (2020-12) by name. What api/json.cpp writes and reads; tests/api/openapi_test.cpp holds them together.
// Thread-safe.
const nlohmann::json& api_schemas();

}  // namespace coppice
