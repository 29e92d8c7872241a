# How every target of the project is built: one place for warnings, sanitizers and the include root.

function(coppice_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  if(COPPICE_SANITIZE STREQUAL "address")
    target_compile_options(${target} PUBLIC -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=address,undefined)
  elseif(COPPICE_SANITIZE STREQUAL "thread")
    # -Wno-tsan: Boost.Asio has fences, which g++ does not instrument and warns of.
    target_compile_options(${target} PUBLIC -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan)
    target_link_options(${target} PUBLIC -fsanitize=thread)
  endif()
endfunction()

# One static library a folder.
function(coppice_library name)
  add_library(coppice_${name} STATIC ${ARGN})
  coppice_compile_options(coppice_${name})
endfunction()

function(coppice_program name)
  add_executable(${name} ${ARGN})
  coppice_compile_options(${name})
endfunction()
