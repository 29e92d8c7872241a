// The lines above a table: where and how it was measured.
#pragma once

#include <nlohmann/json.hpp>
#include <ostream>

namespace coppice::bench {

// `environment`: what describe_environment made, and what the benchmark added. What is missing or null is left out.
void print_head(std::ostream& out, const nlohmann::json& environment, const nlohmann::json& settings);

}  // namespace coppice::bench
