// The VMM that is used where none is named.
#pragma once

#include <string>

namespace coppice {

// The coppice-vmm that is installed beside this program, or the one of its build tree; whether or not it exists.
std::string vmm_beside_this_program();

}  // namespace coppice
