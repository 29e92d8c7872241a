#!/usr/bin/env python3
"""Counts and names the tests that were skipped, of the JUnit files of ctest's runs (ctest --output-junit).

With --allowed FILE a skip that is not on that list fails (exit code 1). A line of the list is a pattern of test names, as of a
shell, and after two spaces the reason why it may be skipped on a machine with KVM, userfaultfd and root.
"""
import argparse
import fnmatch
import pathlib
import re
import sys
import xml.etree.ElementTree

# Where GoogleTest and our Python tests say why.
REASON = re.compile(r"Skipped\n+(.+)|^skipped: (.+)$|: Skipped\s*$\n(.+)", re.MULTILINE)


def reason_of(case: xml.etree.ElementTree.Element) -> str:
    found = REASON.search(case.findtext("system-out") or "")
    return next((group.strip() for group in found.groups() if group), "no reason given") if found else "no reason given"


def skips_of(files: list[pathlib.Path]) -> list[tuple[str, str]]:
    """The name of each skipped test, after its run's, and why it was skipped."""
    skips = []
    for file in files:
        for case in xml.etree.ElementTree.parse(file).getroot().iter("testcase"):
            if case.get("status") == "notrun" or case.find("skipped") is not None:
                skips.append((case.get("name", "?"), reason_of(case)))
    return sorted(set(skips))


def read_allowed(file: pathlib.Path) -> dict[str, str]:
    allowed = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, _, reason = line.partition("  ")
        if not reason.strip():
            sys.exit(f"{file}:{number}: say after two spaces why {pattern} may be skipped")
        allowed[pattern] = reason.strip()
    return allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("junit", nargs="+", type=pathlib.Path)
    parser.add_argument("--allowed", type=pathlib.Path)
    arguments = parser.parse_args()
    skips = skips_of(arguments.junit)
    if skips:
        print(f"\n{len(skips)} tests were skipped:")
        for name, reason in skips:
            print(f"  {name}: {reason}")
    if arguments.allowed is None:
        return 0
    allowed = read_allowed(arguments.allowed)
    wrong = [name for name, _ in skips if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    for name in wrong:
        print(f"{name} was skipped and is not on {arguments.allowed}: let it run here, or add it with its reason")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
