"""What the tools that make tables and charts know of a summary (summarise_benchmarks.py makes it)."""
import json
import pathlib


class Figure:
    """Numbers as the summary has them; `met` is None without a target, and where it was not judged."""

    def __init__(self, row: list):
        self.count, self.median, self.p99, self.worst = row[:4]
        self.target = row[4] if len(row) > 4 else ""
        self.met = row[5] if len(row) > 5 and isinstance(row[5], bool) else None

    @property
    def tail(self) -> float:
        """The p99, which of fewer than 100 values is the worst."""
        return self.p99 if self.count >= 100 else self.worst


class Cell:
    """One combination of settings of one run, and its figures by name."""

    def __init__(self, name: str, run: "Run", rows: dict[str, list]):
        self.name, self.run = name, run
        self.figures = {figure: Figure(row) for figure, row in rows.items()}

    def get(self, name: str) -> Figure | None:
        return self.figures.get(name)

    def __getitem__(self, name: str) -> Figure:
        return self.figures[name]

    @property
    def title(self) -> str:
        return self.name + (", Firecracker" if self.run.is_firecracker else "")


class Run:
    def __init__(self, name: str, data: dict):
        self.name, self.data = name, data
        self.benchmark, self.command = data["benchmark"], data["command"]
        self.cells = {cell: Cell(cell, self, rows) for cell, rows in data["figures"].items()}

    @property
    def is_firecracker(self) -> bool:
        return self.data.get("vmm", "").startswith("Firecracker")

    @property
    def missed(self) -> list[str]:
        return [f"{cell.name} {name}".strip() for cell in self.cells.values()
                for name, figure in cell.figures.items() if figure.met is False]


class Summary:
    """All runs of the given summary files, which later ones add to."""

    def __init__(self, paths: list[pathlib.Path]):
        parts = [json.loads(path.read_text()) for path in paths]
        self.machine = parts[0]["machine"]
        self.runs = [Run(name, data) for part in parts for name, data in part["runs"].items()]

    def of(self, benchmark: str) -> list[Run]:
        return [run for run in self.runs if run.benchmark == benchmark]

    def branch_cells(self) -> list[Cell]:
        """Each combination of settings and VMM once: of the run with most branches, of those of the newest."""
        best: dict[str, Cell] = {}
        for run in sorted(self.of("branch"), key=lambda one: one.data["time"]):
            for cell in run.cells.values():
                if cell.get("total_us") is None:
                    continue
                if cell.title not in best or cell["total_us"].count >= best[cell.title]["total_us"].count:
                    best[cell.title] = cell
        return sorted(best.values(), key=order)


def bytes_of(size: str) -> int:
    return int(size[:-1]) << {"K": 10, "M": 20, "G": 30}[size[-1]]


def order(cell: Cell) -> tuple:
    memory, working_set, pattern, mode = cell.name.split("/")
    return cell.run.is_firecracker, mode != "live", mode, bytes_of(memory), bytes_of(working_set), pattern
