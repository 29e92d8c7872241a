#include "bench/engine_run.hpp"

#include <fcntl.h>

#include <future>

#include "base/file.hpp"

namespace coppice::bench {

result<void> wait_for(const std::function<void(copy_session::completion)>& step) {
  // Shared with the completion: set_value may still be at work when get() has returned.
  auto answer = std::make_shared<std::promise<result<void>>>();
  step([answer](result<void> outcome) { answer->set_value(std::move(outcome)); });
  return answer->get_future().get();
}

result<copy_result> wait_for_copy(copy_session& session, unique_fd image) {
  auto answer = std::make_shared<std::promise<result<copy_result>>>();
  session.copy(std::move(image), [answer](result<copy_result> outcome) { answer->set_value(std::move(outcome)); });
  return answer->get_future().get();
}

void wait_for_abort(copy_session& session) {
  auto answer = std::make_shared<std::promise<void>>();
  session.abort([answer] { answer->set_value(); });
  answer->get_future().get();
}

result<engine_times> run_engine(protected_memory& memory, unique_fd image) {
  auto session = memory.begin();
  if (!session) return std::move(session).error();
  engine_times times;
  auto begin = bench_clock::now();
  COPPICE_TRY(wait_for([&](auto done) { (*session)->prearm(std::move(done)); }));
  times.prearm = seconds_since(begin);
  begin = bench_clock::now();
  COPPICE_TRY(wait_for([&](auto done) { (*session)->rearm(std::move(done)); }));
  times.rearm = seconds_since(begin);
  begin = bench_clock::now();
  auto copied = wait_for_copy(**session, std::move(image));
  times.copy = seconds_since(begin);
  if (!copied) return std::move(copied).error();
  times.summary = copied->summary;
  return times;
}

result<unique_fd> create_image(const std::filesystem::path& path, std::uint64_t size, int flags) {
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  auto image = open_file(path, O_RDWR | O_CREAT | O_EXCL | flags, 0600);
  if (!image) return image;
  if (::ftruncate(image->get(), static_cast<off_t>(size)) != 0) return errno_error("set the size of " + path.string());
  return image;
}

}  // namespace coppice::bench
