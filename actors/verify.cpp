#include "actors/verify.hpp"

#include <fcntl.h>

#include "base/file.hpp"

namespace coppice {

result<verify_report> verify_image(const snapshot_store& store, const std::string& tag) {
  auto record = store.find(tag);
  if (!record) return std::move(record).error();
  auto sums = store.verify(tag);
  if (!sums) return std::move(sums).error();
  verify_report report;
  report.tag = tag;
  report.chunks = sums->chunks;
  report.bad_chunks = sums->bad_chunks.size();
  report.vmstate_ok = sums->vmstate_ok;
  auto image = open_file(record->memory_path(), O_RDONLY);
  if (!image) return std::move(image).error();
  auto journal = check_journal_image(image->get(), record->memory_bytes);
  if (!journal && journal.error().code != errc::corrupt) return std::move(journal).error();
  if (journal) {
    report.is_journal = journal->is_journal;
    report.journal_pages = journal->pages;
    report.journal_steps = journal->steps;
    report.future_pages = journal->future;
    report.lost_pages = journal->lost;
    report.torn_pages = journal->torn;
    report.gaps = journal->gaps;
  } else {  // it bears the journal's mark, but its header makes no sense
    report.is_journal = true;
    report.torn_pages = 1;
  }
  report.ok = sums->ok() && report.future_pages + report.lost_pages + report.torn_pages + report.gaps == 0;
  return report;
}

result<journal_status> to_status(const result<journal_reading>& reading) {
  if (!reading) return reading.error();
  return journal_status{reading->steps, reading->gaps, reading->longest_stall};
}

}  // namespace coppice
