"""From raw files of coppice-bench to what is published."""
import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools"))
import benchmark_tables  # noqa: E402
import summarise_benchmarks  # noqa: E402
import tabulate_benchmarks  # noqa: E402


def raw_run(median: float = 665.0, settings: dict | None = None, kernel: str = "Linux 6") -> dict:
    return {"benchmark": "actors",
            "environment": {"cpu": "A CPU", "cores": 2, "ram_bytes": 2**30, "kernel": kernel, "commit": "abc",
                            "load_average": 0.5, "time": "2026-12-01T10:00:00Z",
                            "root_file_system": "ext4", "root_device": "/dev/vda",
                            "vmm": {"name": "coppice-vmm", "version": "0.1.0"}},
            "settings": settings or {"branches": "50", "memory": "256M", "root": "/var/tmp", "vmm": ""},
            "figures": [figure(cell, f"{name}_us", median) for cell in ("actors", "plain loop")
                        for name in ("total", "pause", "snapshot", "rearm", "resume")]
            + [figure("difference", "median_added_us", 9.0, {"at_most": True, "limit": 100.0, "met": True}),
               figure("difference", "median_to_plain_loop", 1.4, {"at_most": True, "limit": 1.3, "met": False})]}


def figure(cell: str, name: str, median: float, target: dict | None = None) -> dict:
    made = {"cell": cell, "name": name, "better": "lower", "count": 50, "best": 1.0, "p25": 2.0, "median": median,
            "p75": 700.0, "p90": 800.0, "p99": 901.234567, "worst": 950.0, "values": [1.0, 2.0]}
    return made | ({"target": target} if target else {})


class Tree(unittest.TestCase):
    """A tree with one summary and two pages that have figures of it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.folder = self.root / "docs" / "benchmarks"
        self.folder.mkdir(parents=True)
        self.page = self.root / "README.md"
        self.page.write_text("Before <!-- made: actors of a-cpu-2026-12-01 --><!-- end --> after.\n")
        self.write_summary(raw_run())
        for name, value in (("ROOT", self.root), ("FOLDER", self.folder), ("PAGES", [self.page]), ("CHARTS", {})):
            patch = mock.patch.object(tabulate_benchmarks, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def write_summary(self, *runs: dict) -> None:
        summary = summarise_benchmarks.summary_of({f"run-{number}": run for number, run in enumerate(runs)})
        path = self.folder / f"{summarise_benchmarks.name_of(summary)}.json"
        path.write_text(summarise_benchmarks.text_of(summary))


class Summaries(unittest.TestCase):
    def summary(self, **changed) -> dict:
        return summarise_benchmarks.summary_of({"actors": raw_run(**changed)})

    def test_a_figure_keeps_its_count_median_p99_worst_target_and_whether_it_is_met(self):
        cells = self.summary()["runs"]["actors"]["figures"]
        self.assertEqual(cells["actors"]["total_us"], [50, 665, 901.23, 950])
        self.assertEqual(cells["difference"]["median_to_plain_loop"], [50, 1.4, 901.23, 950, "<= 1.3", False])

    def test_the_reason_why_a_target_was_not_judged_is_kept(self):
        raw = raw_run()
        raw["figures"][0]["target"] = {"at_most": False, "limit": 0.5, "met": None,
                                       "not_judged": "12 branches, 100 needed"}
        cells = summarise_benchmarks.summary_of({"actors": raw})["runs"]["actors"]["figures"]
        self.assertEqual(cells["actors"]["total_us"][4:], [">= 0.5", "not judged: 12 branches, 100 needed"])

    def test_a_command_says_what_is_not_assumed_and_calls_the_vmm_by_its_name(self):
        settings = {"branches": "9", "memory": "256M", "root": "/mnt", "vmm": "/opt/fc/firecracker"}
        self.assertEqual(self.summary(settings=settings)["runs"]["actors"]["command"],
                         "coppice-bench actors --branches 9 --vmm firecracker")

    def test_it_is_called_after_the_cpu_and_the_newest_run(self):
        self.assertEqual(summarise_benchmarks.name_of(self.summary()), "a-cpu-2026-12-01")

    def test_files_of_two_machines_are_refused(self):
        with self.assertRaisesRegex(ValueError, "two machines"):
            summarise_benchmarks.summary_of({"one": raw_run(), "other": raw_run(kernel="Linux 7")})

    def test_a_disk_that_is_not_the_other_runs_stands_at_its_run(self):
        other = raw_run()
        other["environment"]["root_device"] = "/dev/vdb"
        runs = summarise_benchmarks.summary_of({"one": raw_run(), "other": other})["runs"]
        self.assertEqual(runs["other"]["root_device"], "/dev/vdb")
        self.assertNotIn("root_device", runs["one"])

    def test_a_mixed_load_keeps_its_times_and_what_was_judged(self):
        raw = {"environment": raw_run()["environment"], "url": "https://h:1", "seconds": 600.0, "rate_per_second": 50.0,
               "requests": {"GET": {"count": 9, "median_ms": 1.0, "p99_ms": 14.3, "worst_ms": 20.0}},
               "failures": {"x": 1},
               "daemon_anonymous_bytes": [2**20, 2**21], "growth_bytes": 0,
               "verdict": {"failed requests: none": False, "99th percentile of GETs: under 10 ms": False,
                           "the daemon's memory: flat in the second half": True}}
        made = summarise_benchmarks.summary_of({"load": raw})["runs"]["load"]
        self.assertEqual(made["figures"]["ms"]["GET"], [9, 1.0, 14.3, 20.0, "<= 10 (p99)", False])
        self.assertEqual(made["figures"][""]["failed_requests"], [1, 1, 1, 1, "<= 0", False])
        self.assertEqual(made["figures"][""]["requests"][1], 10)
        self.assertIn("https", made["command"])


class Pages(Tree):
    def problems(self) -> list[str]:
        out_of_date = [path.name for path, text in self.wanted().items() if path.read_text() != text]
        return tabulate_benchmarks.problems_of_summaries() + out_of_date

    def wanted(self) -> dict:
        return {self.page: tabulate_benchmarks.made_anew(self.page.read_text())}

    def write(self) -> None:
        self.page.write_text(self.wanted()[self.page])

    def test_a_page_has_the_figures_with_the_command_that_makes_them(self):
        self.write()
        self.assertEqual(self.problems(), [])
        for text in ("Before ", "| whole pause | 0.67 (0.95) | 0.67 (0.95) |", "\ncoppice-bench actors\n", " after."):
            self.assertIn(text, self.page.read_text())

    def test_a_target_that_was_missed_is_named(self):
        self.write()
        self.assertIn("Targets missed: `difference median_to_plain_loop` (run-0).", self.page.read_text())

    def test_a_figure_that_was_changed_by_hand_is_found(self):
        self.write()
        self.page.write_text(self.page.read_text().replace("0.67", "0.57"))
        self.assertEqual(self.problems(), ["README.md"])

    def test_a_page_is_out_of_date_when_its_summary_changes(self):
        self.write()
        self.write_summary(raw_run(median=400.0))
        self.assertEqual(self.problems(), ["README.md"])

    def test_a_raw_file_anywhere_in_the_tree_is_found(self):
        self.write()
        (self.root / "docs" / "run.json").write_text(json.dumps(raw_run()))
        (self.root / "build").mkdir()
        (self.root / "build" / "run.json").write_text(json.dumps(raw_run()))
        self.assertRegex(" ".join(self.problems()), r"^docs/run.json is a raw file: [^:]*$")

    def test_summaries_that_are_too_large_are_found(self):
        self.write_summary(*[raw_run() for _ in range(130)])
        self.write()
        self.assertRegex(" ".join(self.problems()), "the summaries have .* allowed")

    def test_a_block_that_is_not_known_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "no block 'actor'"):
            tabulate_benchmarks.made_anew("<!-- made: actor of a-cpu-2026-12-01 --><!-- end -->")

    def test_a_block_that_the_summary_has_no_run_for_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "no run for the block 'soak'"):
            tabulate_benchmarks.made_anew("<!-- made: soak of a-cpu-2026-12-01 --><!-- end -->")

    def test_numbers_are_rounded_as_people_do_it(self):
        for value, digits, text in ((0.595, 2, "0.60"), (0.85, 1, "0.9"), (1438.2, 1, "1,438"), (12.34, 2, "12.3")):
            self.assertEqual(benchmark_tables.number(value, digits), text)


if __name__ == "__main__":
    unittest.main()
