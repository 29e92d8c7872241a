"""What is held against the tree's Markdown, and what is not."""
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools"))
import check_prose  # noqa: E402

LONG = "word " * 30


class Prose(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        patch = mock.patch.object(check_prose, "ROOT", self.root)
        patch.start()
        self.addCleanup(patch.stop)
        (self.root / "docs").mkdir()
        (self.root / "docs" / "other.md").write_text(
            "# The `head`: one\n\n```\n# not a heading\n```\n\n## Twice\n\n## Twice\n\n## With [a link](x.md), too\n")

    def problems(self, text: str) -> list[str]:
        page = self.root / "page.md"
        page.write_text(text)
        return check_prose.problems_of(page)

    def assert_fine(self, text: str) -> None:
        self.assertEqual(self.problems(text), [])

    def assert_found(self, text: str, what: str) -> None:
        problems = self.problems(text)
        self.assertEqual(len(problems), 1, problems)
        self.assertRegex(problems[0], what)

    def test_a_long_line_is_found_with_its_place(self):
        self.assert_found("fine\n\n" + LONG, r"^page.md:3: 150 columns")

    def test_a_line_of_120_columns_is_fine(self):
        self.assert_fine("ab " * 39 + "abc")

    def test_code_blocks_and_lines_without_a_space_may_be_long(self):
        self.assert_fine(f"```sh\n{LONG}\n```\n")
        self.assert_fine(f"- item\n\n  ````\n  ```\n  {LONG}\n  ````\n")
        self.assert_fine("x" * 200)

    def test_after_a_code_block_lines_count_again(self):
        self.assert_found(f"```\ncode\n```\n{LONG}", "page.md:4")

    def test_a_table_may_be_wide_but_its_cells_may_not(self):
        self.assert_fine("| " + " | ".join(["word " * 15] * 4) + " |")
        self.assert_found(f"| a | {LONG}|", "a table cell of 149 characters")

    def test_of_a_link_in_a_cell_the_text_counts(self):
        self.assert_fine(f"| [short](https://{'x' * 100}) |")

    def test_a_bar_that_is_escaped_ends_no_cell(self):
        self.assert_found("| " + "a \\| b " * 15 + "|", "a table cell of 104")

    def test_a_link_to_a_file_or_folder_that_is_there_is_fine(self):
        self.assert_fine("[a](docs/other.md), [b](docs), [`c`](./docs/other.md#twice)")
        self.assert_fine("[d](https://example.org/no#where)")

    def test_a_link_to_no_file_is_found(self):
        self.assert_found("see [a](docs/none.md)", "there is no docs/none.md")
        self.assert_found("![a](none.png)", "there is no none.png")
        self.assert_found("[a]: docs/none.md", "there is no docs/none.md")

    def test_a_link_out_of_the_tree_or_from_the_root_is_found(self):
        self.assert_found("[a](../../etc)", "leads to no file")
        self.assert_found("[a](/docs/other.md)", "is absolute")

    def test_the_target_of_a_picture_within_a_link_is_followed(self):
        self.assert_found("[![a](none.png)](docs/other.md)", "none.png")

    def test_anchors_are_those_that_github_makes_of_headings(self):
        for anchor in ("the-head-one", "twice", "twice-1", "with-a-link-too"):
            self.assert_fine(f"[a](docs/other.md#{anchor})")
        for anchor in ("not-a-heading", "twice-2", "the-head"):
            self.assert_found(f"[a](docs/other.md#{anchor})", f"has no #{anchor}")

    def test_an_anchor_of_the_page_itself_is_followed(self):
        self.assert_fine("# Here\n\n[up](#here)")
        self.assert_found("# Here\n\n[up](#there)", "page.md has no #there")

    def test_what_looks_like_a_link_in_code_is_none(self):
        self.assert_fine("`[a](none.md)` and\n\n```\n[a](none.md)\n```\n")


if __name__ == "__main__":
    unittest.main()
