# How every target of the project is built: one place for warnings, sanitizers, the include root and what makes it quick.

# All sources of a library are compiled as few pieces: their headers (CAF, Asio, JSON, spdlog) cost more than what they say.
# A header that a file forgot to include can hide so; off, each file is compiled by itself and shows it.
option(COPPICE_UNITY "compile the sources of a folder together" ON)

# One linker that is quick, where it is there.
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

function(coppice_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${COPPICE_UNITY} UNITY_BUILD_BATCH_SIZE 8)
  if(COPPICE_SANITIZE STREQUAL "address")
    target_compile_options(${target} PUBLIC -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
                                              -Wno-maybe-uninitialized)  # which g++ says falsely of instrumented code
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

# A program for users: they lie together, as where they are installed, so that they find each other by one rule.
function(coppice_installed_program name)
  coppice_program(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    # gdb and perf find NAME.debug beside it by the link.
    add_custom_command(TARGET ${name} POST_BUILD VERBATIM
                       COMMAND ${CMAKE_OBJCOPY} --only-keep-debug $<TARGET_FILE:${name}> $<TARGET_FILE:${name}>.debug
                       COMMAND ${CMAKE_OBJCOPY} --strip-debug --add-gnu-debuglink=$<TARGET_FILE:${name}>.debug $<TARGET_FILE:${name}>)
  endif()
endfunction()
