// The API, described for programs: https://spec.openapis.org/oas/v3.1.0
#pragma once

#include <nlohmann/json.hpp>

namespace coppice {

// The document, made once of the table of routes, by which the server dispatches, and the schemas. Thread-safe.
const nlohmann::json& openapi_document();

}  // namespace coppice
