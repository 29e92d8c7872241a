#!/usr/bin/env python3
"""The manual pages name each command and option that `--help` names, and none that is gone.

usage: man_pages_test.py FOLDER_OF_PAGES FOLDER_OF_PROGRAMS
"""
import pathlib
import re
import shutil
import subprocess
import sys

OPTION = r"--?[A-Za-z][\w-]*"


def help_of(program: pathlib.Path, path: list) -> str:
    return subprocess.run([program, *path, "--help"], check=True, capture_output=True, text=True).stdout


def block(text: str, title: str) -> list:
    """The lines of a titled block of a help text, up to the next empty line."""
    found = re.search(rf"(?m)^{title}:\n((?:.+\n?)*)", text)
    return found.group(1).splitlines() if found else []


def commands(program: pathlib.Path, path: list):
    """Each command that takes arguments, as (words, its options)."""
    text = help_of(program, path)
    options = set()
    for line in block(text, "Options"):
        if named := re.match(rf"  ({OPTION}(?:,{OPTION})*)(?: |$)", line):
            options.update(named.group(1).split(","))
    below = [line.split()[0] for line in block(text, "Subcommands") if re.match(r"  \S", line)]
    if not below or not path:
        yield " ".join(path), options
    for name in below:
        yield from commands(program, [*path, name])


def page_sections(page: pathlib.Path) -> dict:
    """The options that the page has for each command: those that stand below a .TP. A command is the words in small
    letters of its .SS; "" is the rest of the page. REQUIRES: options are written with \\-, as man(7) has it."""
    sections = {"": set()}
    in_commands, current, after_tag = False, "", False
    for line in page.read_text().splitlines():
        if line.startswith(".SH "):
            in_commands, current = line == ".SH COMMANDS", ""
        elif line.startswith(".SS ") and in_commands:
            words = line.removeprefix(".SS ").split()
            current = " ".join(word for word in words if word.islower())
            sections[current] = set()
        elif after_tag:
            sections[current].update(re.findall(rf"(?<![\w-]){OPTION}", line.replace("\\-", "-").partition(" ")[2]))
        after_tag = line == ".TP"
    return sections


def compare(program: pathlib.Path, page: pathlib.Path) -> list:
    said = page_sections(page)
    real = dict(commands(program, []))
    common = {"-h", "--help"}
    problems = [f"{page.name}: no command '{name}'" for name in real.keys() - said.keys()]
    problems += [f"{page.name}: the command '{name}' is gone" for name in said.keys() - real.keys()]
    for name in real.keys() & said.keys():
        where = f"{page.name}: {program.name} {name}".rstrip()
        problems += [f"{where}: {option} is missing" for option in real[name] - said[name] - common]
        problems += [f"{where}: {option} is gone" for option in said[name] - real[name] - common]
    return problems


def warnings(page: pathlib.Path) -> list:
    done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-Z", page], capture_output=True, text=True)
    return [f"{page.name}: groff: {line}" for line in done.stderr.splitlines()]


def main() -> int:
    pages, programs = map(pathlib.Path, sys.argv[1:])
    found = sorted(pages.glob("*.[0-9]"))
    problems = [] if found else [f"{pages}: no manual pages"]
    for page in found:
        problems += compare(programs / page.stem, page)
        if shutil.which("groff"):
            problems += warnings(page)
    for problem in sorted(problems):
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
