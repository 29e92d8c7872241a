#include "base/patient_log_sink.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <spdlog/spdlog.h>

#include "base/fd.hpp"

namespace coppice {
namespace {

using namespace std::chrono_literals;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class patient_log_sink_test : public testing::Test {
 protected:
  patient_log_sink_test() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    read_end_ = unique_fd(ends[0]);
    write_end_ = unique_fd(ends[1]);
    open_log(60s);
  }
  void open_log(std::chrono::milliseconds last_words) {
    log_ = std::make_unique<spdlog::logger>("test", std::make_shared<patient_log_sink>(write_end_.get(), last_words));
    log_->set_pattern("%v");
  }
  // What is in the pipe until its other end is closed.
  std::string read_all() {
    std::string text;
    char part[4096];
    for (ssize_t got = 0; (got = ::read(read_end_.get(), part, sizeof part)) > 0;)
      text.append(part, static_cast<std::size_t>(got));
    return text;
  }

  unique_fd read_end_;
  unique_fd write_end_;
  std::unique_ptr<spdlog::logger> log_;
};

TEST_F(patient_log_sink_test, writes_every_line_in_its_order) {
  std::string wanted;
  for (int i = 0; i < 100; ++i) {
    log_->info("line {}", i);
    wanted += "line " + std::to_string(i) + "\n";
  }
  log_.reset();
  write_end_.reset();
  EXPECT_EQ(read_all(), wanted);
}

TEST_F(patient_log_sink_test, after_a_flush_all_is_written) {
  log_->info("now");
  log_->flush();
  char part[16];
  ASSERT_EQ(::read(read_end_.get(), part, sizeof part), 4);
}

TEST_F(patient_log_sink_test, nobody_waits_for_a_reader_that_stopped_and_the_log_says_what_is_missing) {
  const std::string line(1000, 'x');  // a pipe holds 65 of them
  const auto count = patient_log_sink::most_lines + 500;
  for (std::size_t i = 0; i < count; ++i) log_->info("{}", line);  // hangs here if logging can wait
  std::thread reader([&] {
    const auto text = read_all();
    EXPECT_THAT(text, HasSubstr(" log lines were dropped here: nobody read the log\n"));
    EXPECT_THAT(text, EndsWith("\nthe end\n"));
    EXPECT_GT(text.size(), patient_log_sink::most_lines * line.size());
  });
  // The reader makes room; only then can this line be in the log.
  log_->flush();
  log_->info("the end");
  log_.reset();
  write_end_.reset();
  reader.join();
}

TEST_F(patient_log_sink_test, its_end_does_not_wait_for_a_reader_for_long) {
  open_log(500ms);
  for (int i = 0; i < 1000; ++i) log_->info("{}", std::string(1000, 'x'));
  log_.reset();  // hangs here if the end can wait for ever
  write_end_.reset();
  EXPECT_THAT(read_all(), StartsWith("xxxx"));
}

TEST_F(patient_log_sink_test, a_reader_that_is_gone_costs_lines_only) {
  const auto before = ::signal(SIGPIPE, SIG_IGN);
  read_end_.reset();
  log_->info("lost");
  log_->flush();
  log_.reset();
  ::signal(SIGPIPE, before);
}

}  // namespace
}  // namespace coppice
