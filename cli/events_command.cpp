#include "cli/events_command.hpp"

#include "cli/event_text.hpp"

namespace coppice {

int follow_events(const command_context& context, const events_arguments& arguments) {
  event_reader reader([&](const server_event& event) {
    const auto told = event_json(event);
    context.out << (context.json ? told.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
                                 : event_line(told))
                << std::endl;
  });
  const auto outcome = context.client.stream(
      "/v1/events",
      [&](std::string_view bytes) {
        reader.take(bytes);
        return context.out.good();  // who reads the output may have gone
      },
      arguments.since);
  if (!outcome.ok()) return report_failure(context, outcome.error());
  if (!context.out.good()) return exit_failed;
  return report_failure(context, {errc::unavailable, 0, "coppiced at " + context.client.url() + " ended the stream"});
}

}  // namespace coppice
