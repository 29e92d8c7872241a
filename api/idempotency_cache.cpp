#include "api/idempotency_cache.hpp"

namespace coppice {

idempotency_cache::ticket::~ticket() {
  if (!finished_) cache_->forget(key_);
}

void idempotency_cache::ticket::finish(const route_answer& answer) {
  finished_ = true;
  if (answer.status >= 400) return cache_->forget(key_);
  cache_->finish(key_, answer);
}

idempotency_cache::decision idempotency_cache::begin(const std::string& key, const sha256_digest& request,
                                                     clock::time_point now) {
  const std::lock_guard lock(mutex_);
  while (!entries_.empty() && entries_.front().done && now - entries_.front().began > limits_.age) {
    erase(entries_.begin());
  }
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    const entry& known = *found->second;
    if (!equal_in_constant_time(known.request, request)) {
      return {nullptr, failure_answer(409, "this Idempotency-Key was used for another request: choose a new one")};
    }
    if (!known.done) {
      return {nullptr, failure_answer(409, "a request with this Idempotency-Key is in flight: ask again later")};
    }
    auto answer = known.answer;
    answer.replayed = true;
    return {nullptr, std::move(answer)};
  }
  if (!make_room(now)) return {nullptr, failure_answer(503, "too many requests with an Idempotency-Key are in flight")};
  entries_.push_back({key, request, now, false, {}});
  by_key_.emplace(key, std::prev(entries_.end()));
  return {std::make_shared<ticket>(shared_from_this(), key), {}};
}

// False if all that are kept are in flight.
bool idempotency_cache::make_room(clock::time_point now) {
  for (auto next = entries_.begin(); next != entries_.end();) {
    const auto which = next++;
    const bool over = entries_.size() >= limits_.entries || bytes_ > limits_.bytes || now - which->began > limits_.age;
    if (!over) break;
    if (which->done) erase(which);
  }
  return entries_.size() < limits_.entries;
}

void idempotency_cache::finish(const std::string& key, const route_answer& answer) {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  found->second->done = true;
  found->second->answer = answer;
  bytes_ += answer.body.size();
}

void idempotency_cache::forget(const std::string& key) {
  const std::lock_guard lock(mutex_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) erase(found->second);
}

void idempotency_cache::erase(std::list<entry>::iterator which) {
  bytes_ -= which->answer.body.size();
  by_key_.erase(which->key);
  entries_.erase(which);
}

}  // namespace coppice
