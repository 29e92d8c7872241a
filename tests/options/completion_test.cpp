// The scripts that `coppice completion` prints, run by the shells that are here.
#include <gmock/gmock.h>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>

#include "base/file.hpp"
#include "cli/coppice.hpp"
#include "daemon/daemon_settings.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

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

// What a shell offers where a line ends, with a coppice whose lists have one name each.
class shell_completion : public ::testing::Test {
 protected:
  void prepare(const char* shell) {
    if (::system(("command -v " + std::string(shell) + " > /dev/null").c_str()) != 0)
      GTEST_SKIP() << "no " << shell << " (packages.txt)";
    ASSERT_TRUE(write_text_file(path("script"), script_for(shell)).ok());
    ASSERT_TRUE(write_text_file(path("coppice"), "#!/bin/sh\n[ \"$2 $3\" = 'ls -q' ] && echo the-$1\n").ok());
    std::filesystem::permissions(path("coppice"), std::filesystem::perms::owner_all);
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::vector<std::string> run(const std::string& shell, const std::string& text) {
    EXPECT_TRUE(write_text_file(path("runner"), text).ok());
    auto lines = lines_of("PATH=" + folder_.path().string() + ":$PATH HOME=" + folder_.path().string() + " " + shell +
                          " " + path("runner") + " 2>&1");
    std::erase(lines, "");
    return lines;
  }

 private:
  temp_dir folder_;
};

class bash_completion : public shell_completion {
 protected:
  void SetUp() override { prepare("bash"); }
  // What bash offers for a line's words, the last of which is being typed.
  std::vector<std::string> offers(const std::string& words) {
    return run("bash -eu", ". " + path("script") + "\nCOMP_WORDS=(" + words +
                               ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_coppice\n"
                               "printf '%s\\n' \"${COMPREPLY[@]}\"\n");
  }
};

class zsh_completion : public shell_completion {
 protected:
  void SetUp() override { prepare("zsh"); }
  // The same of zsh; its own functions that choose among the offers are replaced by ones that print them.
  std::vector<std::string> offers(const std::string& words) {
    return run("zsh -f", "compdef() {}\ncompadd() { shift; print -l -- $@ }\n_files() { print files }\n. " +
                             path("script") + "\nwords=(" + words + ")\nCURRENT=$#words\n_coppice\n");
  }
};

class fish_completion : public shell_completion {
 protected:
  void SetUp() override { prepare("fish"); }
  // The same of fish, for a line as it is typed; without the descriptions.
  std::vector<std::string> offers(const std::string& line) {
    auto lines = run("fish --no-config", "source " + path("script") + "\ncomplete -C '" + line + "'\n");
    for (auto& each : lines) each = each.substr(0, each.find('\t'));
    return lines;
  }
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

TEST_F(bash_completion, offers_the_daemons_names) {
  EXPECT_THAT(offers("coppice branch the"), ElementsAre("the-sandbox"));
  EXPECT_THAT(offers("coppice verify the"), ElementsAre("the-snapshot"));
  EXPECT_THAT(offers("coppice sandbox create the"), ElementsAre("the-snapshot"));
  EXPECT_THAT(offers("coppice snapshot create the"), ElementsAre()) << "a name that is new";
  EXPECT_THAT(offers("coppice snapshot rm b1 the"), ElementsAre("the-snapshot")) << "any number of them";
  EXPECT_THAT(offers("coppice snapshot rm b1 --ca"), ElementsAre("--cascade"));
  for (const char* verb : {"exec", "eval", "ping", "journal", "sandbox rm sb-1"}) {
    EXPECT_THAT(offers("coppice " + std::string(verb) + " the"), ElementsAre("the-sandbox")) << verb;
  }
  EXPECT_THAT(offers("coppice events the"), ElementsAre());
  EXPECT_THAT(offers("coppice events --s"), IsSupersetOf({"--since", "--server"}));
}

TEST_F(zsh_completion, offers_commands_options_choices_and_names) {
  EXPECT_THAT(offers("coppice sn"), IsSupersetOf({"snapshot", "sandbox", "--server"}));
  EXPECT_THAT(offers("coppice --json snapshot ''"),
              AllOf(IsSupersetOf({"create", "ls", "rm"}), Not(Contains("branch"))));
  EXPECT_THAT(offers("coppice branch sb-1 --mode ''"), ElementsAre("live", "full", "diff"));
  EXPECT_THAT(offers("coppice snapshot create base --kernel ''"), ElementsAre("files"));
  EXPECT_THAT(offers("coppice branch ''"), IsSupersetOf({"the-sandbox", "--tag"}));
  EXPECT_THAT(offers("coppice snapshot create ''"), Not(Contains("the-snapshot")));
}

TEST_F(fish_completion, offers_commands_options_choices_and_names) {
  EXPECT_THAT(offers("coppice sn"), ElementsAre("snapshot"));
  EXPECT_THAT(offers("coppice --json snapshot "), AllOf(IsSupersetOf({"create", "ls", "rm"}), Not(Contains("branch"))));
  EXPECT_THAT(offers("coppice branch sb-1 --mode "), UnorderedElementsAre("live", "full", "diff"));
  EXPECT_THAT(offers("coppice branch --ta"), ElementsAre("--tag"));
  EXPECT_THAT(offers("coppice branch the"), ElementsAre("the-sandbox"));
  EXPECT_THAT(offers("coppice snapshot create the"), ElementsAre());
}

TEST(completion, the_daemon_has_scripts_too) {
  const std::pair<const char*, const char*> parts[] = {
      {"bash", "complete -o default -F _coppiced coppiced"},
      {"zsh", "#compdef coppiced"},
      {"fish", "test \"$(__coppiced_command)\" = \"coppiced\"' -l log-level -x -a 'trace debug info warn err'"}};
  for (const auto& [shell, part] : parts) {
    const char* const words[] = {"coppiced", "--completion", shell};
    std::ostringstream out;
    std::ostringstream err;
    const auto ended = parse_daemon_settings(3, words, out, err);
    EXPECT_EQ(std::get<int>(ended), 0) << err.str();
    EXPECT_THAT(out.str(), AllOf(HasSubstr(part), HasSubstr("bounce-memory"), HasSubstr("human json")));
  }
}

}  // namespace
}  // namespace coppice
