#!/usr/bin/env python3
"""Makes the table of the long runs in docs/benchmarks/README.md of the JSON files in docs/benchmarks/long/.

usage: tabulate_benchmarks.py [--check]

With --check nothing is written: the exit code is 1 if the table is out of date.
"""
import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "benchmarks"
BEGIN, END = "<!-- long runs: begin -->\n", "<!-- long runs: end -->\n"
HEAD = """| RAM/working set/pattern/mode | branches | whole pause, ms | longest stall, ms | the same, nothing branched | guest's speed while copied | copy, GB/s | bad pages | missed | of |
|---|---|---|---|---|---|---|---|---|---|
"""


def in_ms(figure: dict) -> str:
    tail = figure["p99"] if figure["count"] >= 100 else figure["worst"]
    return f"{figure['median'] / 1000:.1f} ({tail / 1000:.1f})"


def row(cell: str, figures: dict, run: dict) -> str:
    def text(name: str, form) -> str:
        return form(figures[name]) if figures.get(name, {}).get("count") else ""

    def median(digits: int):
        return lambda figure: f"{figure['median']:.{digits}f}"

    vmm = run["environment"]["vmm"]["name"]
    missed = [name for name, figure in figures.items() if figure.get("target", {}).get("met") is False]
    columns = [cell if vmm == "coppice-vmm" else f"{cell}, {vmm}", str(figures["total_us"]["count"]),
               text("total_us", in_ms), text("stall_us", in_ms), text("idle_stall_us", in_ms),
               text("copy_to_idle_speed", median(2)), text("copy_gb_per_s", median(1)), text("bad_pages", median(0)),
               ", ".join(f"`{name}`" for name in missed), run["environment"]["time"][:10]]
    return "| " + " | ".join(columns) + " |\n"


def bytes_of(size: str) -> int:
    return int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]


def order(cell: str, run: dict) -> tuple:
    memory, working_set, pattern, mode = cell.split("/")
    return (run["environment"]["vmm"]["name"] != "coppice-vmm", mode != "live", mode, bytes_of(memory),
            bytes_of(working_set), pattern)


def table() -> str:
    rows = []
    for path in sorted((FOLDER / "long").glob("branch-*.json")):
        run = json.loads(path.read_text())
        cells: dict[str, dict] = {}
        for figure in run["figures"]:
            cells.setdefault(figure["cell"], {})[figure["name"]] = figure
        rows += [(order(cell, run), row(cell, figures, run)) for cell, figures in cells.items() if "total_us" in figures]
    return HEAD + "".join(text for _, text in sorted(rows))


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    page = FOLDER / "README.md"
    old = page.read_text()
    before, rest = old.split(BEGIN)
    new = before + BEGIN + table() + END + rest.split(END)[1]
    if sys.argv[1:]:
        if new != old:
            print("docs/benchmarks/README.md is out of date: run tools/tabulate_benchmarks.py", file=sys.stderr)
        return int(new != old)
    page.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
