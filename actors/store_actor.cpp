#include "actors/store_actor.hpp"

#include <fcntl.h>

#include "actors/error_bridge.hpp"
#include "actors/verify.hpp"
#include "base/file.hpp"
#include "base/log.hpp"

namespace coppice {
namespace {

result<reservation> reserve(const services& with, const reserve_snapshot& ask) {
  auto staged = with.store.reserve(ask.tag, ask.memory_bytes);
  if (!staged) return std::move(staged).error();
  auto image = open_file((*staged)->memory_path(), O_RDWR);
  if (!image) return std::move(image).error();
  auto both = std::make_unique<staging>();
  both->staged = std::move(*staged);
  both->image = std::move(*image);
  both->directory = both->staged->directory();
  both->memory_path = both->staged->memory_path();
  both->vmstate_path = both->staged->vmstate_path();
  return reservation{share_offloaded(with.disk_pool, std::move(both))};
}

result<published_snapshot> publish(const services& with, const publish_snapshot& ask) {
  const std::lock_guard lock(ask.staged->in_use);
  if (!ask.staged->staged || ask.staged->given_up) return error{errc::cancelled, 0, "the staging was dropped"};
  ask.staged->image.reset();
  auto published = with.store.publish(std::move(ask.staged->staged), ask.record);
  if (!published) return std::move(published).error();
  if (ask.staged->given_up) {  // the branch was undone meanwhile: nobody may find it
    if (auto removed = with.store.remove(published->tag); !removed)
      spdlog::error("snapshot '{}' was given up but can't be removed: {}", published->tag, removed.error().message());
    return error{errc::cancelled, 0, "the branch was undone while it was published"};
  }
  ask.staged->published_tag = published->tag;
  return published_snapshot{std::make_shared<const snapshot_record>(std::move(*published))};
}

result<pinned_snapshot> pin(const services& with, const pin_snapshot& ask) {
  auto pin = with.store.pin(ask.tag);
  if (!pin) return std::move(pin).error();
  const auto* const wanted = ask.same_as.get();
  if (wanted != nullptr && ((*pin)->created_at_unix != wanted->created_at_unix ||
                            (*pin)->memory_chunk_checksums != wanted->memory_chunk_checksums))
    return error{errc::not_found, 0, "snapshot '" + ask.tag + "' is another one by now"};
  return pinned_snapshot{std::move(*pin)};
}

result<finished> compose(const compose_image& ask) {
  const std::lock_guard lock(ask.staged->in_use);
  if (!ask.staged->staged || ask.staged->given_up) return error{errc::cancelled, 0, "the staging was dropped"};
  auto base = open_file(ask.base->memory_path(), O_RDONLY);
  if (!base) return std::move(base).error();
  auto diff = open_file(ask.diff, O_RDONLY);
  if (!diff) return std::move(diff).error();
  auto output = open_file(ask.staged->memory_path, O_RDWR);
  if (!output) return std::move(output).error();
  COPPICE_TRY(compose_diff_image(base->get(), diff->get(), output->get(), ask.memory_bytes));
  std::error_code failure;
  std::filesystem::remove(ask.diff, failure);
  if (failure) return error{errc::io, failure.value(), "remove " + ask.diff.string()};
  return finished{};
}

}  // namespace

template <class T, class F>
caf::typed_response_promise<T> store_actor::offload(executor& where, F work) {
  auto promise = this->make_response_promise<T>();
  where.post([self = store_handle(this), promise, work = std::move(work)]() mutable {
    run_in(self, [promise, answer = work()]() mutable {
      if (answer)
        promise.deliver(std::move(*answer));
      else
        promise.deliver(to_caf(answer.error()));
    });
  });
  return promise;
}

store_actor::behavior_type store_actor::make_behavior() {
  return {
      [](const continuation& next) { next.what->run(); },
      [this](const reserve_snapshot& ask) {
        return offload<reservation>(*with_->disk_pool, [with = with_, ask] { return reserve(*with, ask); });
      },
      [this](const publish_snapshot& ask) {
        return offload<published_snapshot>(*with_->disk_pool, [with = with_, ask] { return publish(*with, ask); });
      },
      [this](const drop_staging& ask) {
        return offload<finished>(*with_->disk_pool, [with = with_, ask]() -> result<finished> {
          const std::lock_guard lock(ask.staged->in_use);
          ask.staged->image.reset();
          ask.staged->staged.reset();
          // Published while the undo was on its way: nobody may find it.
          if (!ask.staged->published_tag.empty()) COPPICE_TRY(with->store.remove(ask.staged->published_tag));
          return finished{};
        });
      },
      [this](const compose_image& ask) {
        return offload<finished>(*with_->image_pool, [ask] { return compose(ask); });
      },
      [this](const pin_snapshot& ask) {
        return offload<pinned_snapshot>(*with_->disk_pool, [with = with_, ask] { return pin(*with, ask); });
      },
      [this](const remove_snapshot& ask) {
        return offload<finished>(*with_->disk_pool, [with = with_, ask]() -> result<finished> {
          COPPICE_TRY(with->store.remove(ask.tag));
          return finished{};
        });
      },
      [this](const find_snapshot& ask) {
        return offload<published_snapshot>(*with_->disk_pool, [with = with_, ask]() -> result<published_snapshot> {
          auto found = with->store.find(ask.tag);
          if (!found) return std::move(found).error();
          return published_snapshot{std::make_shared<const snapshot_record>(*std::move(found))};
        });
      },
      [this](const verify_snapshot& ask) {
        return offload<verify_report>(*with_->image_pool,
                                      [with = with_, ask] { return verify_image(with->store, ask.tag); });
      },
  };
}

}  // namespace coppice
