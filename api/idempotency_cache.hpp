// The answers of requests with an Idempotency-Key, so that a repetition gets the first answer instead of a second
// effect.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "api/digest.hpp"
#include "api/routes.hpp"

namespace coppice {

struct idempotency_limits {
  std::size_t entries = 1000;
  std::size_t bytes = 64 * mib;  // of answers kept; the oldest go first
  std::chrono::steady_clock::duration age = std::chrono::hours(24);
};

// Thread-safe. Shared by a server and the requests that are under way.
class idempotency_cache : public std::enable_shared_from_this<idempotency_cache> {
 public:
  using clock = std::chrono::steady_clock;

  explicit idempotency_cache(idempotency_limits limits = {}) : limits_(limits) {}

  // The right to run a request: its answer is kept by finish(). If it is destroyed without, the key is free again.
  class ticket {
   public:
    ticket(std::shared_ptr<idempotency_cache> cache, std::string key)
        : cache_(std::move(cache)), key_(std::move(key)) {}
    ticket(const ticket&) = delete;
    ticket& operator=(const ticket&) = delete;
    ~ticket();
    // Keeps `answer`, unless it is a failure: then nothing was made, and the request may be tried again.
    void finish(const route_answer& answer);

   private:
    std::shared_ptr<idempotency_cache> cache_;
    std::string key_;
    bool finished_ = false;
  };

  struct decision {
    std::shared_ptr<ticket> run;  // set: run the request, and finish() it
    route_answer answer;          // else: what to answer
  };

  // `key`: the caller's and the client's together; `request`: digest of what is asked. A key that was used for another
  // request, or whose request is still in flight, is 409; if 1,000 are in flight, 503.
  decision begin(const std::string& key, const sha256_digest& request, clock::time_point now = clock::now());

 private:
  struct entry {
    std::string key;
    sha256_digest request;
    clock::time_point began;
    bool done = false;
    route_answer answer;
  };

  void finish(const std::string& key, const route_answer& answer);
  void forget(const std::string& key);
  void erase(std::list<entry>::iterator which);
  bool make_room(clock::time_point now);

  const idempotency_limits limits_;
  std::mutex mutex_;
  std::list<entry> entries_;  // the oldest first
  std::unordered_map<std::string, std::list<entry>::iterator> by_key_;
  std::size_t bytes_ = 0;
};

}  // namespace coppice
