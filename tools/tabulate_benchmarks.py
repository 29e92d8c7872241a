#!/usr/bin/env python3
"""Makes the figures of README.md and docs/benchmarks/ of the summaries that are there: tables, sentences, charts.

usage: tabulate_benchmarks.py
           writes the charts, and what stands between <!-- made: BLOCK of SUMMARY, ... --> and <!-- end -->
       tabulate_benchmarks.py --check [--bench COPPICE_BENCH]
           writes nothing; ends with 1 if any of that is out of date, if there is a raw JSON file in the tree, if the
           summaries are too large, or if a command leaves out what COPPICE_BENCH does not assume
       tabulate_benchmarks.py SUMMARY --to FOLDER
           a page and charts of one summary, e.g. of your own `./dev bench`
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

from benchmark_summary import Summary
from benchmark_tables import BLOCKS
from draw_benchmarks import CHARTS
from summarise_benchmarks import DEFAULTS

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "benchmarks"
PAGES = [ROOT / "README.md", FOLDER / "README.md"]
MOST_BYTES = 100 * 1024
BLOCK = re.compile(r"(<!-- made: ([\w-]+) of ([^>]+?) -->)(.*?)(<!-- end -->)", re.DOTALL)


def summary_of(names: str) -> Summary:
    return Summary([FOLDER / f"{name.strip()}.json" for name in names.split(",")])


def made_anew(page: str) -> str:
    def fill(found: re.Match) -> str:
        begin, name, names, _, end = found.groups()
        if name not in BLOCKS:
            raise ValueError(f"there is no block '{name}', only {', '.join(BLOCKS)}")
        text = BLOCKS[name](summary_of(names))
        if not text:
            raise ValueError(f"{names} has no run for the block '{name}'")
        return f"{begin}\n{text}{end}"
    return BLOCK.sub(fill, page)


def wanted() -> dict[pathlib.Path, str]:
    """Each file that is made, and what belongs into it."""
    files = {page: made_anew(page.read_text()) for page in PAGES}
    names = next(found.group(3) for found in BLOCK.finditer(files[FOLDER / "README.md"]) if found.group(2) == "branch")
    return files | {FOLDER / name: draw(summary_of(names)) for name, draw in CHARTS.items()}


def json_files() -> dict[pathlib.Path, dict]:
    """All objects that the tree has in JSON files, outside of build/."""
    found = {}
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if name not in ("build", ".git")]
        for path in [pathlib.Path(folder, name) for name in sorted(names) if name.endswith(".json")]:
            try:
                data = json.loads(path.read_text())
            except ValueError:
                continue  # no JSON: none of ours
            if isinstance(data, dict):
                found[path] = data
    return found


def problems_of_summaries() -> list[str]:
    found, together = [], 0
    for path, data in json_files().items():
        if isinstance(data.get("figures"), list) or "daemon_anonymous_bytes" in data:
            found.append(f"{path.relative_to(ROOT)} is a raw file: make a summary of it "
                         "(python3 tools/summarise_benchmarks.py) and keep it in build/bench")
        if "machine" in data and "runs" in data:
            together += path.stat().st_size
    if together > MOST_BYTES:
        found.append(f"docs/benchmarks: the summaries have {together} bytes, {MOST_BYTES} are allowed: "
                     "remove an older one")
    return found


def problems_of_defaults(bench: str) -> list[str]:
    """A command may leave out only what coppice-bench takes by itself."""
    found = []
    for benchmark, assumed in DEFAULTS.items():
        told = subprocess.run([bench, benchmark, "--help"], capture_output=True, text=True, check=True).stdout
        real = dict(re.findall(r"^\s+--([\w-]+) [^=\n]*=(\S+)", told, re.MULTILINE))
        for name, value in assumed.items():
            if real.get(name) != value:
                found.append(f"tools/summarise_benchmarks.py, DEFAULTS: coppice-bench {benchmark} --{name} is "
                             f"{real.get(name)} by itself, not {value}")
    return found


def check(bench: str | None) -> int:
    found = problems_of_summaries() + (problems_of_defaults(bench) if bench else [])
    found += [f"{path.relative_to(ROOT)} is out of date: run python3 tools/tabulate_benchmarks.py"
              for path, text in wanted().items() if not path.exists() or path.read_text() != text]
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


def write_page(path: pathlib.Path, folder: pathlib.Path) -> None:
    """All that one summary has, for a look: it need not have every run."""
    summary = Summary([path])
    parts = [f"# {path.stem}\n"]
    for name, make in BLOCKS.items():
        text = make(summary)
        if text:
            parts.append(f"## {name}\n\n{text}")
    folder.mkdir(parents=True, exist_ok=True)
    if summary.branch_cells():
        for name, draw in CHARTS.items():
            (folder / name).write_text(draw(summary))
            parts.append(f"![]({name})\n")
    (folder / "README.md").write_text("\n".join(parts))
    print(folder / "README.md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("summary", nargs="?", type=pathlib.Path)
    parser.add_argument("--to", type=pathlib.Path, help="folder for a page of SUMMARY")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--bench", help="coppice-bench, to compare what the commands leave out")
    options = parser.parse_args()
    if (options.summary is None) != (options.to is None):
        parser.error("give a SUMMARY and --to FOLDER together")
    try:
        if options.check:
            return check(options.bench)
        if options.summary:
            write_page(options.summary, options.to)
        else:
            for path, text in wanted().items():
                path.write_text(text)
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as problem:
        print(f"tabulate_benchmarks.py: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
