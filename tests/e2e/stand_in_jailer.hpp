// Where there is no Firecracker: a script that does what its jailer does.
#pragma once

#include <filesystem>

namespace coppice::e2e {

inline const std::filesystem::path stand_in_jailer = COPPICE_STAND_IN_JAILER;  // jailer.sh, set by CMake

}  // namespace coppice::e2e
