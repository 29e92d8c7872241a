#include <csignal>
#include <cstdlib>
#include <iostream>

#include "cli/coppice.hpp"
#include "options/exit_codes.hpp"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  const int code = coppice::run_coppice(argc, argv, std::cout, std::cerr);
  // A call that a signal interrupted may still be under way, on a thread that destructors of static objects would pull
  // the ground from under.
  std::cout.flush();
  if (code > coppice::exit_signalled) std::_Exit(code);
  return code;
}
