"""Which skipped tests are named, and which of them fail a check."""
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools"))
import report_skips  # noqa: E402

JUNIT = """<testsuite>
<testcase name="store.works" status="run"><system-out>fine</system-out></testcase>
<testcase name="vmm.on/it/firecracker" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>
<system-out>tests/vmm_test.cpp:12: Skipped
set COPPICE_FIRECRACKER
</system-out></testcase>
</testsuite>"""


class Skips(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "junit.xml").write_text(JUNIT)

    def run_with(self, allowed: str | None) -> tuple[int, str]:
        arguments = ["report_skips", str(self.root / "junit.xml")]
        if allowed is not None:
            (self.root / "allowed.txt").write_text(allowed)
            arguments += ["--allowed", str(self.root / "allowed.txt")]
        out = io.StringIO()
        with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(out):
            return report_skips.main(), out.getvalue()

    def test_a_skipped_test_is_counted_and_named_with_its_reason(self):
        code, text = self.run_with(None)
        self.assertEqual(code, 0)
        self.assertIn("1 tests were skipped", text)
        self.assertIn("vmm.on/it/firecracker: set COPPICE_FIRECRACKER", text)
        self.assertNotIn("store.works", text)

    def test_one_that_is_on_the_list_is_let_through(self):
        self.assertEqual(self.run_with("# why\n*/firecracker*  needs one\n")[0], 0)

    def test_one_that_is_not_fails_and_is_told(self):
        code, text = self.run_with("store.*  because\n")
        self.assertEqual(code, 1)
        self.assertIn("vmm.on/it/firecracker was skipped and is not on", text)

    def test_a_line_without_a_reason_is_an_error(self):
        with self.assertRaisesRegex(SystemExit, "say after two spaces why"):
            self.run_with("*/firecracker*\n")


if __name__ == "__main__":
    unittest.main()
