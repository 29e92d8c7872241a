// `coppice` against an API server of the test's own, with a fake control plane.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "api/server.hpp"
#include "cli/coppice.hpp"
#include "tests/api/fake_control_plane.hpp"

namespace coppice {

class coppice_command : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = api_server::start("127.0.0.1", 0, plane_);
    ASSERT_TRUE(started.ok());
    api_ = *std::move(started);
    server_ = "http://127.0.0.1:" + std::to_string(api_->port());
  }

  // Runs `coppice --server ... words`; keeps what it printed.
  int run(std::vector<const char*> words) {
    words.insert(words.begin(), {"coppice", "--server", server_.c_str()});
    std::ostringstream out;
    std::ostringstream err;
    const int code = run_coppice(static_cast<int>(words.size()), words.data(), out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  fake_control_plane plane_;
  std::unique_ptr<api_server> api_;
  std::string server_;
  std::string out_;
  std::string err_;
};

}  // namespace coppice
