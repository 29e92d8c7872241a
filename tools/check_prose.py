#!/usr/bin/env python3
"""Checks the Markdown of the tree: lines of at most 120 columns, table cells of at most 100 characters, links.

usage: check_prose.py [FILE...]    (default: every *.md of the tree; prints FILE:LINE: what is wrong and what to do)

Code blocks are not looked at. A table's lines may be as long as they like, its cells may not; of a link in one, the
text counts. Of links only those within the tree are followed: the file must be there, and the heading that an anchor
names, as GitHub spells it.
"""
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST_COLUMNS, MOST_OF_CELL = 120, 100
FENCE = re.compile(r"\s*(?:>\s*|[-*]\s+|\d+\.\s+)*(`{3,}|~{3,})")
TABLE = re.compile(r"\s*(?:>\s*)?\|")
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
COMMENT = re.compile(r"<!--.*?-->")
LINK = re.compile(r"(?<!\\)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"\s{0,3}\[[^\]]+\]:\s+<?([^\s>]+)")
HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*$")
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def text_lines(text: str) -> list[tuple[int, str]]:
    """The lines outside of code blocks, with their numbers."""
    found, fence = [], ""
    for number, line in enumerate(text.split("\n"), 1):
        opened = FENCE.match(line)
        if fence:
            if opened and opened.group(1).startswith(fence) and line.strip(" >") == opened.group(1):
                fence = ""
        elif opened:
            fence = opened.group(1)
        else:
            found.append((number, line))
    return found


def shown(text: str) -> str:
    """What a reader sees of a line, roughly: of links the text, no comments."""
    return LINK.sub(lambda link: link.group(1), COMMENT.sub("", text))


def without_code(line: str) -> str:
    return CODE.sub(lambda code: "`" * len(code.group()), line)


def slug(heading: str) -> str:
    """As GitHub makes anchors of headings."""
    plain = re.sub(r"[`*]", "", shown(heading)).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors_of(path: pathlib.Path) -> set[str]:
    found: set[str] = set()
    for _, line in text_lines(path.read_text()):
        found.update(ANCHOR.findall(line))
        heading = HEADING.match(line)
        if not heading:
            continue
        name, number = slug(heading.group(1)), 0
        while name + (f"-{number}" if number else "") in found:
            number += 1
        found.add(name + (f"-{number}" if number else ""))
    return found


def widths(line: str) -> list[str]:
    if TABLE.match(line):
        cells = [shown(cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        return [f"a table cell of {len(cell)} characters, {MOST_OF_CELL} are allowed: say less, or say it below the "
                f"table ({cell[:40]}...)" for cell in cells if len(cell) > MOST_OF_CELL]
    if len(line) > MOST_COLUMNS and " " in line.strip()[:MOST_COLUMNS]:
        return [f"{len(line)} columns, {MOST_COLUMNS} are allowed: break the line"]
    return []


def where_it_leads(path: pathlib.Path, target: str) -> str:
    """What is wrong with a link; empty if nothing is."""
    if ELSEWHERE.match(target):
        return ""
    if target.startswith("/"):
        return f"the link {target} is absolute: write it from this file's folder"
    name, _, anchor = target.partition("#")
    led = pathlib.Path(os.path.normpath(path.parent / name)) if name else path
    if not led.exists() or not led.is_relative_to(ROOT):
        return f"the link {target} leads to no file: there is no {os.path.relpath(led, ROOT)}"
    if anchor and led.suffix == ".md" and anchor not in anchors_of(led):
        return f"the link {target} leads to no heading: {os.path.relpath(led, ROOT)} has no #{anchor}"
    return ""


def problems_of(path: pathlib.Path) -> list[str]:
    found = []
    for number, line in text_lines(path.read_text()):
        told = widths(line)
        bare = without_code(line)
        targets = [link.group(2) for link in LINK.finditer(bare)]
        # A picture within a link: its own target, too.
        targets += [inner.group(2) for link in LINK.finditer(bare) for inner in LINK.finditer(link.group(1))]
        targets += DEFINITION.findall(bare)
        told += [problem for problem in (where_it_leads(path, target) for target in targets) if problem]
        found += [f"{os.path.relpath(path, ROOT)}:{number}: {problem}" for problem in told]
    return found


def pages() -> list[pathlib.Path]:
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = sorted(name for name in below if name not in ("build", ".git"))
        found += [pathlib.Path(folder, name) for name in sorted(names) if name.endswith(".md")]
    return found


def main() -> int:
    asked = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    problems = [problem for path in asked or pages() for problem in problems_of(path)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
