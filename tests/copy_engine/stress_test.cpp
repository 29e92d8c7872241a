// All at once, for the sanitizers above all: several VMs with several writers, overlapping branches,
// and aborts, each VM branched by a thread of its own.
#include <random>
#include <thread>

#include "tests/copy_engine/engine_fixture.hpp"

namespace coppice {
namespace {

constexpr std::size_t vms = 3;
constexpr int branches_of_each = 10;
constexpr std::size_t most_overlapping = 3;
constexpr int most_rounds_of_stress = 5;

class stress_test : public copy_engine_test {
 protected:
  void hammer(const copy_engine_options& options);

  // Branches the guest; what is not aborted must be perfect.
  static void drive(branched_guest& guest, unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::size_t bound) {
      return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random);
    };
    std::vector<running_branch> open;
    for (int i = 0; i < branches_of_each; ++i) {
      open.push_back(guest.branch("image" + std::to_string(i)));
      if (below(4) == 0) guest.prearmed_branch("unused").session.reset();
      if (below(3) == 0) open.erase(open.begin() + static_cast<std::ptrdiff_t>(below(open.size())));
      if (open.size() <= most_overlapping) continue;
      guest.expect_perfect(open.front());
      open.erase(open.begin());
    }
    for (auto& each : open) guest.expect_perfect(each);
    EXPECT_TRUE(guest.vm->runs());
  }
};

void stress_test::hammer(const copy_engine_options& options) {
  std::array<branched_guest, vms> guests;
  for (auto& each : guests) each.boot({.pages = 1024, .writers = 2});
  start_engine(options);
  if (HasFatalFailure()) return;
  for (auto& each : guests) each.attach_to(*engine);
  if (IsSkipped() || HasFatalFailure()) return;
  std::vector<std::thread> drivers;
  for (unsigned i = 0; i < vms; ++i) drivers.emplace_back([&guest = guests[i], i] { drive(guest, i); });
  for (std::thread& each : drivers) each.join();
  EXPECT_EQ(engine->stats().bounce_bytes_used, 0U);
  const auto faults = engine->stats().faults;
  for (const auto& each : guests) EXPECT_TRUE(each.vm->runs());
  EXPECT_EQ(engine->stats().faults, faults) << "the guests must be unprotected";
}

TEST_F(stress_test, images_of_several_vms_at_once_are_of_their_instants) {
  hammer({.bounce_bytes = mib, .longest_deferral = patience});
}

// Where the CPUs are busy, the guests may have captured all before the copy begins: then once more.
TEST_F(stress_test, what_is_saved_ahead_of_a_slow_disk_is_of_its_instant) {
  std::uint64_t saved_ahead = 0;
  for (int round = 0; round < most_rounds_of_stress && saved_ahead == 0; ++round) {
    stop();
    hammer({.bounce_bytes = 64 * mib,
            .rates = {.branch_bytes_per_second = 16 * mib},
            .longest_deferral = patience,
            .hot_set_time = {}});
    if (IsSkipped() || HasFatalFailure()) return;
    saved_ahead = engine->stats().saved_ahead_pages;
  }
  EXPECT_GT(saved_ahead, 0U);
}

}  // namespace
}  // namespace coppice
