#include <csignal>
#include <iostream>

#include "cli/coppice.hpp"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return coppice::run_coppice(argc, argv, std::cout, std::cerr);
}
