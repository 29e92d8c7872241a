#include "reference_vmm/fault_injection.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace coppice::reference {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

TEST(fault_injection, every_kind_is_read_with_its_call_and_its_time) {
  const struct {
    const char* text;
    const char* method;
    const char* path;
    unsigned nth;
    fault_kind kind;
    std::chrono::milliseconds wait;
  } cases[] = {
      {"PATCH /vm#2:hang", "PATCH", "/vm", 2, fault_kind::hang, 0ms},
      {"PUT /snapshot/create:delay=250", "PUT", "/snapshot/create", 0, fault_kind::delay, 250ms},
      {"PUT /uffd/wp#1:delay-after=0", "PUT", "/uffd/wp", 1, fault_kind::delay_after, 0ms},
      {"GET /:fail", "GET", "/", 0, fault_kind::fail, 0ms},
      {"PUT /snapshot/load#4294967295:exit", "PUT", "/snapshot/load", 4294967295, fault_kind::exit, 0ms},
  };
  for (const auto& each : cases) {
    const auto parsed = parse_fault(each.text);
    ASSERT_TRUE(parsed) << each.text << ": " << parsed.error().message();
    EXPECT_EQ(parsed->method, each.method) << each.text;
    EXPECT_EQ(parsed->path, each.path) << each.text;
    EXPECT_EQ(parsed->nth, each.nth) << each.text;
    EXPECT_EQ(parsed->kind, each.kind) << each.text;
    EXPECT_EQ(parsed->wait, each.wait) << each.text;
  }
}

TEST(fault_injection, what_is_no_fault_is_refused_with_the_form_of_one) {
  for (const char* text : {"",
                           " ",
                           ":",
                           "PATCH",
                           "PATCH /vm",
                           "PATCH/vm:hang",
                           "/vm:hang",
                           "DELETE /vm:hang",
                           "patch /vm:hang",
                           "PATCH vm:hang",
                           "PATCH :hang",
                           "PATCH /vm:",
                           "PATCH /vm:sleep",
                           "PATCH /vm:hang=3",
                           "PATCH /vm:fail=",
                           "PATCH /vm:delay",
                           "PATCH /vm:delay=",
                           "PATCH /vm:delay=-1",
                           "PATCH /vm:delay=1s",
                           "PATCH /vm:delay=4294967296",
                           "PATCH /vm#0:hang",
                           "PATCH /vm#:hang",
                           "PATCH /vm#x:hang",
                           "PATCH /vm#1 :hang",
                           "PATCH /vm#4294967296:hang"}) {
    const auto parsed = parse_fault(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, errc::invalid_argument) << text;
    EXPECT_THAT(parsed.error().message(), HasSubstr("'" + std::string(text) + "'"));
    EXPECT_THAT(parsed.error().message(), HasSubstr("<METHOD> <path>"));
  }
}

TEST(fault_injection, a_numbered_fault_strikes_that_call_only_and_others_every_one) {
  fault_plan plan({*parse_fault("PATCH /vm#2:hang"), *parse_fault("PATCH /vm:delay=1"), *parse_fault("PUT /vm:exit")});
  EXPECT_EQ(plan.strike("PATCH", "/vm").size(), 1U);
  EXPECT_TRUE(plan.strike("GET", "/vm").empty());
  EXPECT_TRUE(plan.strike("PATCH", "/vm/").empty());
  const auto second = plan.strike("PATCH", "/vm");
  ASSERT_EQ(second.size(), 2U);
  EXPECT_EQ(second[0].kind, fault_kind::hang);
  EXPECT_EQ(second[1].kind, fault_kind::delay);
  EXPECT_EQ(plan.strike("PATCH", "/vm").size(), 1U);
}

}  // namespace
}  // namespace coppice::reference
