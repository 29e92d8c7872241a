// Where a benchmark ran: what two runs must have in common to be compared.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace coppice::bench {

// {"cpu", "cores", "load_average", "ram_bytes", "kernel", "kvm", "root", "root_file_system", "root_device", "commit",
// "version", "build", "time"}. What can't be found out is null.
nlohmann::json describe_environment(const std::filesystem::path& root);

}  // namespace coppice::bench
