#include "cli/top.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <optional>

#include "cli/signal_file.hpp"
#include "cli/top_view.hpp"
#include "options/exit_codes.hpp"

namespace coppice {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds answer_deadline{5000};
constexpr char ctrl_c = 3;

constexpr const char* enter_screen = "\x1b[?1049h\x1b[?25l";  // the alternate screen, no cursor
constexpr const char* leave_screen = "\x1b[?25h\x1b[?1049l";

result<top_reading> read_daemon(const command_context& context) {
  api_client client = context.client;
  client.set_timeout(answer_deadline);
  top_reading reading;
  reading.url = client.url();
  for (const auto& [path, into] :
       {std::pair{"/version", &reading.version}, std::pair{"/v1/sandboxes", &reading.sandboxes},
        std::pair{"/v1/snapshots", &reading.snapshots}}) {
    auto answer = client.get(path);
    if (!answer.ok()) return std::move(answer).error();
    *into = *std::move(answer);
  }
  const auto metrics = client.send("GET", "/metrics");
  if (!metrics.ok()) return metrics.error();
  if (metrics->status != 200) {
    return error{errc::unavailable, 0, "/metrics answers with status " + std::to_string(metrics->status)};
  }
  auto samples = metric_samples::parse(metrics->body);
  if (!samples.ok()) return std::move(samples).error();
  reading.metrics = *std::move(samples);
  reading.when = steady_clock::now();
  return reading;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno != EINTR) return;  // the terminal is gone; poll() will say so
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// The terminal in the state that the view needs, and back. Keys come at once and unechoed, Ctrl-C as a byte.
class raw_terminal {
 public:
  raw_terminal(int input, int output) : input_(input), output_(output) {
    ::tcgetattr(input_, &before_);
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
    ::tcsetattr(input_, TCSANOW, &raw);
    write_all(output_, enter_screen);
  }
  raw_terminal(const raw_terminal&) = delete;
  raw_terminal& operator=(const raw_terminal&) = delete;
  ~raw_terminal() {
    write_all(output_, leave_screen);
    ::tcsetattr(input_, TCSANOW, &before_);
  }

  // As many lines and columns as there is room for; nothing wraps.
  void show(const std::vector<std::string>& lines) const {
    winsize size{};
    if (::ioctl(output_, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) size = {24, 80, 0, 0};
    std::string frame = "\x1b[H";
    for (std::size_t i = 0; i < lines.size() && i < size.ws_row; ++i) {
      if (i > 0) frame += "\r\n";
      frame += lines[i].substr(0, size.ws_col) + "\x1b[K";
    }
    write_all(output_, frame + "\x1b[J");
  }

 private:
  const int input_;
  const int output_;
  termios before_{};
};

enum class next_step { read_again, redraw, end };

// Waits for a key, a signal or the time of the next frame.
next_step wait_for_next(int input, const signal_file& signals, steady_clock::time_point until) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now()).count();
    if (left <= 0) return next_step::read_again;
    pollfd events[] = {{input, POLLIN, 0}, {signals.fd(), POLLIN, 0}};
    if (::poll(events, 2, static_cast<int>(left)) <= 0) continue;
    if (events[1].revents != 0) return signals.take() == SIGWINCH ? next_step::redraw : next_step::end;
    char key = 0;
    if (::read(input, &key, 1) <= 0 || key == 'q' || key == ctrl_c) return next_step::end;
  }
}

}  // namespace

int show_top_on_terminal(const command_context& context, std::chrono::milliseconds interval, int input, int output) {
  auto now = read_daemon(context);
  if (!now.ok()) return report_failure(context, now.error());  // before the terminal is touched
  std::optional<top_reading> before;
  const signal_file signals{SIGINT, SIGTERM, SIGHUP, SIGWINCH};
  const raw_terminal terminal(input, output);
  for (;;) {
    const auto next_frame = steady_clock::now() + interval;
    auto lines = now.ok() ? top_lines(*now, before ? &*before : nullptr)
                          : std::vector<std::string>{"coppice: " + now.error().message(), "", "q ends"};
    next_step step = next_step::redraw;
    while (step == next_step::redraw) {
      terminal.show(lines);
      step = wait_for_next(input, signals, next_frame);
    }
    if (step == next_step::end) return exit_ok;
    before = now.ok() ? std::optional(*std::move(now)) : std::nullopt;
    now = read_daemon(context);
  }
}

int run_top(const command_context& context, const top_options& options) {
  if (!options.once && !context.json && ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) {
    const auto interval = std::chrono::duration<double>(options.interval_seconds);
    return show_top_on_terminal(context, std::chrono::duration_cast<std::chrono::milliseconds>(interval), STDIN_FILENO,
                                STDOUT_FILENO);
  }
  const auto reading = read_daemon(context);
  if (!reading.ok()) return report_failure(context, reading.error());
  if (context.json) {
    print_json(context.out, top_json(*reading));
    return exit_ok;
  }
  for (const auto& line : top_lines(*reading, nullptr)) context.out << line << '\n';
  return exit_ok;
}

}  // namespace coppice
