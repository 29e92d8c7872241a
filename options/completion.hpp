// Completion scripts for shells, made of the commands and options themselves.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace coppice {

// The script for "bash", "zsh" or "fish" that completes the subcommands of `app`, their options, and the choices of
// options and arguments; file names where an option takes anything else. An option is known in the commands below its
// own, too. Arguments ID and TAG are completed by what `sandbox ls -q` and `snapshot ls -q` of `app` print.
std::string completion_script(const CLI::App& app, const std::string& shell);

}  // namespace coppice
