#include "store/store.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "base/image_digest.hpp"
#include "tests/store/store_fixture.hpp"

namespace coppice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

snapshot_record record_with(const std::function<void(snapshot_record&)>& set) {
  snapshot_record record;
  set(record);
  return record;
}

// Seams with a tmpfs that isn't there.
store_seams without_tmpfs(const std::filesystem::path& folder) {
  store_seams seams;
  seams.tmpfs = folder / "missing";
  return seams;
}

class store : public testing::Test {
 protected:
  void SetUp() override { reopen(); }
  void reopen() {
    store_.reset();
    auto opened = open_at(root());
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    store_ = std::move(*opened);
  }
  std::filesystem::path root() const { return folder_.path() / "new" / "root"; }
  std::filesystem::path snapshots() const { return root() / "snapshots"; }

  temp_dir folder_;
  std::unique_ptr<snapshot_store> store_;
};

TEST_F(store, a_published_snapshot_has_its_files_and_is_listed) {
  const auto record = publish_new(*store_, "base", record_with([](auto& r) { r.vmm = "Firecracker 1.12.1"; }));
  ASSERT_TRUE(record.ok()) << record.error().message();
  EXPECT_EQ(record->directory, snapshots() / "base");
  EXPECT_THAT(names_in(record->directory), ElementsAre("manifest.json", "memory.bin", "vmstate"));
  EXPECT_EQ(*read_text_file(record->vmstate_path()), "registers of base");
  EXPECT_EQ(record->vmstate_bytes, 17U);
  EXPECT_EQ(std::filesystem::file_size(record->memory_path()), image_bytes);
  EXPECT_GT(record->created_at_unix, 1'700'000'000U);
  EXPECT_EQ(record->memory_chunk_checksums.size(), 3U);
  EXPECT_THAT(tags_of(*store_), ElementsAre("base"));
  EXPECT_EQ(store_->find("base")->vmm, "Firecracker 1.12.1");
}

TEST_F(store, a_snapshot_is_found_again_after_reopening) {
  snapshot_record given;
  given.branched_from = "sb-1";
  given.parent_tag = "base";
  given.backing = "file";
  given.mode = branch_mode::live;
  given.vcpus = 4;
  given.created_at_unix = 77;
  given.read_only_drives = {"/images/root.ext4"};
  given.network = true;
  given.pause = pause_breakdown{};
  given.copy = copy_summary{};
  given.pause->total = std::chrono::microseconds(1234);
  given.copy->bulk_pages = 9;
  const auto published = publish_new(*store_, "b1", given);
  ASSERT_TRUE(published.ok());
  reopen();
  EXPECT_THAT(store_->removed_at_open(), IsEmpty());
  EXPECT_THAT(store_->unreadable_at_open(), IsEmpty());
  const auto found = store_->find("b1");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->branched_from, "sb-1");
  EXPECT_EQ(found->parent_tag, "base");
  EXPECT_EQ(found->backing, "file");
  EXPECT_EQ(found->mode, branch_mode::live);
  EXPECT_EQ(found->vcpus, 4U);
  EXPECT_EQ(found->created_at_unix, 77U);
  EXPECT_EQ(found->read_only_drives, given.read_only_drives);
  EXPECT_TRUE(found->network);
  EXPECT_EQ(found->pause->total, given.pause->total);
  EXPECT_EQ(found->copy->bulk_pages, 9U);
  EXPECT_EQ(found->memory_chunk_checksums, published->memory_chunk_checksums);
  EXPECT_EQ(found->vmstate_checksum, published->vmstate_checksum);
  EXPECT_EQ(found->directory, snapshots() / "b1");
}

TEST_F(store, the_list_is_ordered_by_creation_then_tag) {
  ASSERT_TRUE(publish_new(*store_, "z", record_with([](auto& r) { r.created_at_unix = 5; })).ok());
  ASSERT_TRUE(publish_new(*store_, "b", record_with([](auto& r) { r.created_at_unix = 9; })).ok());
  ASSERT_TRUE(publish_new(*store_, "a", record_with([](auto& r) { r.created_at_unix = 9; })).ok());
  EXPECT_THAT(tags_of(*store_), ElementsAre("z", "a", "b"));
}

TEST_F(store, a_second_store_on_the_root_is_refused_with_the_holders_pid) {
  const auto second = open_at(root() / ".." / "root");
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, errc::conflict);
  EXPECT_THAT(second.error().message(), HasSubstr("pid " + std::to_string(::getpid())));
  EXPECT_THAT(second.error().message(), HasSubstr(root().string()));
}

TEST_F(store, the_root_stays_locked_while_a_staged_snapshot_lives) {
  auto staged = store_->reserve("late", image_bytes);
  ASSERT_TRUE(staged.ok());
  store_.reset();
  EXPECT_EQ(open_at(root()).error().code, errc::conflict);
  staged->reset();
  reopen();
  EXPECT_THAT(store_->removed_at_open(), IsEmpty());
}

TEST_F(store, a_root_without_permission_is_named) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(3);
    const auto opened = open_at("/root/coppice");
    const bool right = !opened.ok() && opened.error().code == errc::io &&
                       opened.error().message().find("/root/coppice") != std::string::npos;
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(store, a_root_that_is_a_file_is_an_io_error) {
  ASSERT_TRUE(write_text_file(folder_.path() / "file", "x").ok());
  const auto opened = open_at(folder_.path() / "file");
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, errc::io);
  EXPECT_THAT(opened.error().message(), HasSubstr((folder_.path() / "file").string()));
}

TEST_F(store, a_reserved_image_has_its_size_and_is_all_hole) {
  const auto staged = store_->reserve("s", image_bytes);
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ((*staged)->tag(), "s");
  EXPECT_EQ((*staged)->directory(), snapshots() / ".staging-s-1");
  EXPECT_EQ((*staged)->memory_path(), snapshots() / ".staging-s-1" / "memory.bin");
  struct stat status {};
  ASSERT_EQ(::stat((*staged)->memory_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(image_bytes));
  EXPECT_EQ(status.st_blocks, 0);
  EXPECT_THAT(store_->list(), IsEmpty());
  EXPECT_EQ(store_->find("s").error().code, errc::not_found);
}

TEST_F(store, no_reservation_has_the_files_of_an_earlier_one_of_its_tag) {
  auto first = store_->reserve("s", image_bytes);
  const auto folder = (*first)->directory(), vmstate = (*first)->vmstate_path();
  first->reset();
  const auto second = store_->reserve("s", image_bytes);
  ASSERT_TRUE(second.ok());
  EXPECT_NE((*second)->directory(), folder) << "a VMM that is late may still write there";
  EXPECT_NE((*second)->vmstate_path(), vmstate);
}

TEST_F(store, a_vmstate_is_staged_on_tmpfs_in_a_private_folder) {
  const auto staged = store_->reserve("s", image_bytes);
  const auto vmstate = (*staged)->vmstate_path();
  EXPECT_THAT(vmstate.string(), testing::StartsWith("/dev/shm/coppice-"));
  EXPECT_EQ(vmstate.filename(), "s-1.vmstate");
  struct stat status {};
  ASSERT_EQ(::stat(vmstate.parent_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700U);
}

TEST_F(store, the_tmpfs_folder_goes_with_the_store) {
  auto staged = store_->reserve("s", image_bytes);
  const auto folder = (*staged)->vmstate_path().parent_path();
  fill(**staged);
  ASSERT_TRUE(store_->publish(std::move(*staged), {}).ok());
  EXPECT_THAT(names_in(folder), IsEmpty());
  store_.reset();
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(store, without_a_tmpfs_the_vmstate_is_staged_in_the_staging_folder) {
  const temp_dir other;
  auto opened = open_at(other.path() / "r", without_tmpfs(other.path()));
  ASSERT_TRUE(opened.ok());
  auto staged = (*opened)->reserve("s", image_bytes);
  EXPECT_EQ((*staged)->vmstate_path().parent_path(), (*staged)->directory());
  fill(**staged);
  ASSERT_TRUE((*opened)->publish(std::move(*staged), {}).ok());
  EXPECT_TRUE((*opened)->verify("s")->ok());
  EXPECT_THAT(names_in(other.path() / "r" / "snapshots" / "s"), ElementsAre("manifest.json", "memory.bin", "vmstate"));
}

TEST_F(store, a_tmpfs_folder_that_others_may_enter_is_not_used) {
  auto staged = store_->reserve("s", image_bytes);
  const auto folder = (*staged)->vmstate_path().parent_path();
  staged->reset();
  store_.reset();
  ASSERT_EQ(::mkdir(folder.c_str(), 0755), 0);
  ASSERT_EQ(::chmod(folder.c_str(), 0755), 0);
  reopen();
  EXPECT_EQ((*store_->reserve("s", image_bytes))->vmstate_path().parent_path(), snapshots() / ".staging-s-1");
  store_.reset();
  ::rmdir(folder.c_str());
}

TEST_F(store, dropping_a_staged_snapshot_removes_every_trace) {
  auto staged = store_->reserve("s", image_bytes);
  fill(**staged);
  const auto vmstate = (*staged)->vmstate_path();
  staged->reset();
  EXPECT_THAT(names_in(snapshots()), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(vmstate));
  EXPECT_EQ(store_->usage().reserved_bytes, 0U);
  EXPECT_TRUE(store_->reserve("s", image_bytes).ok());
}

TEST_F(store, bad_tags_and_sizes_are_refused) {
  for (const char* tag : {"", "..", ".hidden", "a/b", "-x"}) {
    EXPECT_EQ(store_->reserve(tag, image_bytes).error().code, errc::invalid_argument) << tag;
  }
  EXPECT_EQ(store_->reserve("s", 0).error().code, errc::invalid_argument);
  EXPECT_EQ(store_->reserve("s", 4097).error().code, errc::invalid_argument);
}

TEST_F(store, a_tag_is_taken_while_in_the_making_and_when_ready) {
  auto staged = store_->reserve("s", image_bytes);
  EXPECT_EQ(store_->reserve("s", image_bytes).error().code, errc::already_exists);
  fill(**staged);
  ASSERT_TRUE(store_->publish(std::move(*staged), {}).ok());
  EXPECT_EQ(store_->reserve("s", image_bytes).error().code, errc::already_exists);
}

TEST_F(store, a_snapshot_too_large_for_the_disk_is_refused_with_figures) {
  for (const std::uint64_t size : {1024 * 1024 * gib, ~std::uint64_t{0} / page_size * page_size}) {
    const auto staged = store_->reserve("huge", size);
    ASSERT_FALSE(staged.ok());
    EXPECT_EQ(staged.error().code, errc::no_space);
    EXPECT_THAT(staged.error().message(), HasSubstr(format_bytes(size)));
    EXPECT_THAT(staged.error().message(), HasSubstr("are free on " + root().string()));
  }
  EXPECT_THAT(names_in(snapshots()), IsEmpty());
}

TEST_F(store, the_space_to_keep_free_is_kept) {
  store_.reset();
  const auto free = std::filesystem::space(root()).available;
  auto opened = snapshot_store::open({.root = root(), .keep_free_bytes = free});
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ((*opened)->reserve("s", image_bytes).error().code, errc::no_space);
}

TEST_F(store, usage_counts_reservations_and_snapshots) {
  EXPECT_EQ(store_->usage().snapshots, 0U);
  EXPECT_EQ(store_->usage().reserved_bytes, 0U);
  EXPECT_GT(store_->usage().free_bytes, 0U);
  EXPECT_GE(store_->usage().size_bytes, store_->usage().free_bytes);
  auto staged = store_->reserve("s", 64 * mib);
  EXPECT_GE(store_->usage().reserved_bytes, 64 * mib);
  const auto before = store_->usage().reserved_bytes;
  write_page((*staged)->memory_path(), 0, 'x');
  EXPECT_LE(store_->usage().reserved_bytes, before - page_size) << "what is written is no longer only reserved";
  staged->reset();
  ASSERT_TRUE(publish_new(*store_, "t").ok());
  EXPECT_EQ(store_->usage().snapshots, 1U);
  EXPECT_EQ(store_->usage().reserved_bytes, 0U);
}

TEST_F(store, publishing_checks_the_files) {
  const auto failure_after = [&](const std::function<void(const staged_snapshot&)>& spoil) {
    auto staged = store_->reserve("s", image_bytes);
    fill(**staged);
    spoil(**staged);
    const auto published = store_->publish(std::move(*staged), {});
    EXPECT_FALSE(published.ok());
    EXPECT_THAT(names_in(snapshots()), IsEmpty());
    EXPECT_THAT(store_->list(), IsEmpty());
    return published.ok() ? errc::internal : published.error().code;
  };
  EXPECT_EQ(failure_after([](const auto& s) { std::filesystem::remove(s.vmstate_path()); }), errc::corrupt);
  EXPECT_EQ(failure_after([](const auto& s) { std::filesystem::resize_file(s.vmstate_path(), 0); }), errc::corrupt);
  EXPECT_EQ(failure_after([](const auto& s) { std::filesystem::remove(s.memory_path()); }), errc::corrupt);
  EXPECT_EQ(failure_after([](const auto& s) { std::filesystem::resize_file(s.memory_path(), 4096); }), errc::corrupt);
}

TEST_F(store, publishing_never_replaces_a_folder_it_does_not_know) {
  auto staged = store_->reserve("s", image_bytes);
  fill(**staged);
  std::filesystem::create_directory(snapshots() / "s");
  EXPECT_EQ(store_->publish(std::move(*staged), {}).error().code, errc::already_exists);
  EXPECT_THAT(names_in(snapshots()), ElementsAre("s"));
}

TEST_F(store, given_checksums_are_kept_and_a_wrong_number_of_them_is_refused) {
  ASSERT_FALSE(publish_new(*store_, "s", record_with([](auto& r) { r.memory_chunk_checksums = {1, 2}; })).ok());
  const auto record = publish_new(*store_, "s", record_with([](auto& r) { r.memory_chunk_checksums = {1, 2, 3}; }));
  ASSERT_TRUE(record.ok());
  EXPECT_THAT(store_->verify("s")->bad_chunks, ElementsAre(0, 1, 2));
}

TEST_F(store, a_snapshot_in_use_cannot_be_removed) {
  ASSERT_TRUE(publish_new(*store_, "s").ok());
  auto first = store_->pin("s");
  auto second = store_->pin("s");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ((*first)->tag, "s");
  EXPECT_EQ(store_->remove("s").error().code, errc::conflict);
  first->reset();
  EXPECT_EQ(store_->remove("s").error().code, errc::conflict);
  second->reset();
  EXPECT_TRUE(store_->remove("s").ok());
  EXPECT_EQ(store_->pin("s").error().code, errc::not_found);
}

TEST_F(store, a_removed_snapshot_leaves_nothing_and_frees_its_tag) {
  ASSERT_TRUE(publish_new(*store_, "s").ok());
  ASSERT_TRUE(store_->remove("s").ok());
  EXPECT_THAT(names_in(snapshots()), IsEmpty());
  EXPECT_EQ(store_->remove("s").error().code, errc::not_found);
  EXPECT_EQ(store_->find("s").error().code, errc::not_found);
  EXPECT_TRUE(publish_new(*store_, "s").ok());
}

TEST_F(store, a_snapshot_in_the_making_cannot_be_removed) {
  const auto staged = store_->reserve("s", image_bytes);
  EXPECT_EQ(store_->remove("s").error().code, errc::conflict);
}

TEST_F(store, verify_accepts_what_was_published) {
  ASSERT_TRUE(publish_new(*store_, "s").ok());
  const auto verified = store_->verify("s");
  ASSERT_TRUE(verified.ok());
  EXPECT_TRUE(verified->ok());
  EXPECT_EQ(verified->chunks, 3U);
  EXPECT_EQ(store_->verify("t").error().code, errc::not_found);
}

TEST_F(store, verify_finds_the_chunk_that_changed) {
  const auto record = publish_new(*store_, "s");
  write_page(record->memory_path(), pages_per_chunk, 'x');
  const auto verified = store_->verify("s");
  EXPECT_THAT(verified->bad_chunks, ElementsAre(1));
  EXPECT_TRUE(verified->vmstate_ok);
  EXPECT_FALSE(verified->ok());
}

TEST_F(store, verify_finds_a_shortened_and_a_grown_image) {
  const auto record = publish_new(*store_, "s");
  std::filesystem::resize_file(record->memory_path(), image_bytes - page_size);
  EXPECT_THAT(store_->verify("s")->bad_chunks, ElementsAre(2));
  std::filesystem::resize_file(record->memory_path(), image_bytes);
  write_page(record->memory_path(), image_bytes / page_size - 1, 'z');
  EXPECT_TRUE(store_->verify("s")->ok());
  std::filesystem::resize_file(record->memory_path(), image_bytes + 1);
  EXPECT_THAT(store_->verify("s")->bad_chunks, ElementsAre(2));
  std::filesystem::remove(record->memory_path());
  EXPECT_THAT(store_->verify("s")->bad_chunks, ElementsAre(0, 1, 2));
}

TEST_F(store, verify_finds_a_changed_or_missing_vmstate) {
  const auto record = publish_new(*store_, "s");
  ASSERT_TRUE(write_text_file(record->vmstate_path(), "registers of S").ok());
  EXPECT_FALSE(store_->verify("s")->vmstate_ok);
  EXPECT_THAT(store_->verify("s")->bad_chunks, IsEmpty());
  std::filesystem::remove(record->vmstate_path());
  EXPECT_FALSE(store_->verify("s")->ok());
}

TEST_F(store, a_damaged_snapshot_is_reported_and_left_alone) {
  for (const char* tag : {"good", "no-manifest", "no-json", "newer", "short", "other"}) {
    ASSERT_TRUE(publish_new(*store_, tag).ok());
  }
  const auto manifest_of = [&](const std::string& tag) { return snapshots() / tag / "manifest.json"; };
  std::filesystem::remove(manifest_of("no-manifest"));
  ASSERT_TRUE(write_text_file(manifest_of("no-json"), "{\"format_version\": 1,").ok());
  ASSERT_TRUE(write_text_file(manifest_of("newer"), "{\"format_version\": 2, \"shards\": []}").ok());
  std::filesystem::resize_file(snapshots() / "short" / "memory.bin", 4096);
  std::filesystem::copy_file(manifest_of("good"), manifest_of("other"),
                             std::filesystem::copy_options::overwrite_existing);
  reopen();
  EXPECT_THAT(tags_of(*store_), ElementsAre("good"));
  EXPECT_THAT(store_->unreadable_at_open(),
              ElementsAre(HasSubstr("newer: format version 2 is newer"), HasSubstr("no-json: damaged manifest"),
                          HasSubstr("no-manifest: "), HasSubstr("other: damaged manifest: it is of tag 'good'"),
                          HasSubstr("short/memory.bin is missing or has not its 5242880 bytes")));
  EXPECT_TRUE(std::filesystem::exists(snapshots() / "newer" / "memory.bin"));
  EXPECT_EQ(store_->find("newer").error().code, errc::not_found);
  EXPECT_EQ(store_->reserve("newer", image_bytes).error().code, errc::already_exists);
}

TEST_F(store, what_a_crash_left_is_removed_and_reported_and_foreign_folders_are_not) {
  auto staged = store_->reserve("s", image_bytes);
  const auto left_vmstate = (*staged)->vmstate_path().parent_path() / "crashed.vmstate";
  staged->reset();
  store_.reset();
  std::filesystem::create_directories(snapshots() / ".staging-crashed" / "deeper");
  std::filesystem::create_directories(snapshots() / ".removed-gone-1-1");
  std::filesystem::create_directories(snapshots() / "lost+found");
  ASSERT_EQ(::mkdir(left_vmstate.parent_path().c_str(), 0700), 0);
  ASSERT_TRUE(write_text_file(left_vmstate, "x").ok());
  reopen();
  EXPECT_THAT(store_->removed_at_open(),
              ElementsAre(left_vmstate.string(), (snapshots() / ".removed-gone-1-1").string(),
                          (snapshots() / ".staging-crashed").string()));
  EXPECT_THAT(names_in(snapshots()), ElementsAre("lost+found"));
  EXPECT_THAT(store_->unreadable_at_open(), IsEmpty());
}

TEST_F(store, a_snapshot_staged_by_another_store_is_refused) {
  const temp_dir elsewhere;
  auto other = open_at(elsewhere.path());
  auto staged = (*other)->reserve("s", image_bytes);
  fill(**staged);
  EXPECT_EQ(store_->publish(std::move(*staged), {}).error().code, errc::internal);
  EXPECT_EQ(store_->publish(nullptr, {}).error().code, errc::internal);
}

TEST_F(store, many_threads_may_use_it_at_once) {
  constexpr int threads = 4;
  constexpr int rounds = 6;
  std::atomic<int> raced_wins = 0;
  {
    std::vector<std::jthread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        for (int i = 0; i < rounds; ++i) {
          const std::string tag = "t" + std::to_string(t) + "-" + std::to_string(i);
          EXPECT_TRUE(publish_new(*store_, tag).ok());
          if (publish_new(*store_, "raced-" + std::to_string(i)).ok()) ++raced_wins;
          EXPECT_TRUE(store_->verify(tag)->ok());
          (void)store_->usage();
          (void)store_->list();
          {
            const auto pinned = store_->pin(tag);
            EXPECT_EQ(store_->remove(tag).error().code, errc::conflict);
          }
          EXPECT_TRUE(store_->remove(tag).ok());
        }
      });
    }
  }
  EXPECT_EQ(raced_wins, rounds) << "each raced tag is published exactly once";
  EXPECT_EQ(store_->list().size(), static_cast<std::size_t>(rounds));
  EXPECT_EQ(names_in(snapshots()).size(), static_cast<std::size_t>(rounds));
}

}  // namespace
}  // namespace coppice
