// The scripts that `coppice completion` prints, run by the shells that are here.
#include <gmock/gmock.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <memory>
#include <sstream>

#include "base/file.hpp"
#include "cli/coppice.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

std::string script_for(const char* shell) {
  std::ostringstream out;
  std::ostringstream err;
  const char* const words[] = {"coppice", "completion", shell};
  EXPECT_EQ(run_coppice(3, words, out, err), 0) << err.str();
  return out.str();
}

std::vector<std::string> lines_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string text;
  std::array<char, 4096> buffer;
  while (const auto length = std::fread(buffer.data(), 1, buffer.size(), pipe.get()))
    text.append(buffer.data(), length);
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

class bash_completion : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/bin/bash", X_OK) != 0) GTEST_SKIP() << "no bash";
    ASSERT_TRUE(write_text_file(folder_.path() / "script", script_for("bash")).ok());
  }
  // What bash offers for a line's words, the last of which is being typed.
  std::vector<std::string> offers(const std::string& words) {
    const std::string runner =
        ". " + (folder_.path() / "script").string() + "\nCOMP_WORDS=(" + words +
        ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_coppice\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
    EXPECT_TRUE(write_text_file(folder_.path() / "runner", runner).ok());
    auto lines = lines_of("/bin/bash -eu " + (folder_.path() / "runner").string() + " 2>&1");
    std::erase(lines, "");
    return lines;
  }
  temp_dir folder_;
};

TEST_F(bash_completion, offers_commands_options_and_choices) {
  EXPECT_THAT(offers("coppice sn"), ElementsAre("snapshot"));
  EXPECT_THAT(offers("coppice snapshot ''"), IsSupersetOf({"create", "ls", "info", "verify", "rm", "--server"}));
  EXPECT_THAT(offers("coppice snapshot create --k"), ElementsAre("--kernel"));
  EXPECT_THAT(offers("coppice branch sb-1 --mode ''"), ElementsAre("live", "full", "diff"));
  EXPECT_THAT(offers("coppice branch --mode = d"), ElementsAre("diff"));
  EXPECT_THAT(offers("coppice branch --mode ="), ElementsAre("live", "full", "diff"));
  EXPECT_THAT(offers("coppice completion ''"), IsSupersetOf({"bash", "zsh", "fish"}));
}

TEST_F(bash_completion, finds_its_way_past_values_and_arguments) {
  EXPECT_THAT(offers("coppice --server branch snapshot cr"), ElementsAre("create")) << "branch is a value here";
  EXPECT_THAT(offers("coppice --json snapshot ls --js"), ElementsAre("--json"));
  EXPECT_THAT(offers("coppice snapshot create base --kernel ''"), ElementsAre()) << "file names, by bash itself";
  EXPECT_THAT(offers("coppice branch sb-1 --no-wait --ta"), ElementsAre("--tag"));
  EXPECT_THAT(offers("coppice branch ''"), Not(Contains("create")));
}

TEST(completion, every_shells_script_has_every_command) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    EXPECT_THAT(script_for(shell), AllOf(HasSubstr("coppice snapshot create"), HasSubstr("coppice sandbox rm"),
                                         HasSubstr("live full diff"), HasSubstr("doctor"), HasSubstr("interval")))
        << shell;
  }
}

}  // namespace
}  // namespace coppice
