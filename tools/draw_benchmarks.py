"""Draws the two charts of docs/benchmarks/ as SVG, of a summary: the same figures give the same file."""
import math
from xml.sax.saxutils import escape

from benchmark_summary import Cell, Summary

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 190, 40, 44, 66
OURS, BASELINE, FLOOR, ACCENT, LIMIT = "#1f6f5c", "#9aa2a9", "#cfd4d8", "#d98e04", "#c0392b"
STEPS = (("pause", OURS), ("snapshot", "#4c9a86"), ("re-arm", ACCENT), ("resume", "#9cc9bc"))


class Chart:
    """Rows of bars or marks over one axis of ms."""

    def __init__(self, title: str, rows: list[str], ticks: list[float], place):
        self.place = lambda value: LEFT + (WIDTH - LEFT - RIGHT) * place(value)
        self.bottom = TOP + ROW * len(rows)
        self.parts = [f'<text x="8" y="20" font-size="15" font-weight="bold">{escape(title)}</text>']
        for tick in ticks:
            x = self.place(tick)
            self.parts.append(f'<path d="M{x:.1f} {TOP}V{self.bottom}" stroke="#e4e7ea"/>')
            self.text(x, self.bottom + 16, f"{tick:g}", "middle")
        self.text(WIDTH - RIGHT, self.bottom + 32, "ms", "end")
        self.text(8, self.bottom + 32, "RAM/working set, written to at random")
        for number, row in enumerate(rows):
            self.text(LEFT - 8, TOP + ROW * number + ROW / 2 + 4, row, "end")

    def text(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def bar(self, row: int, down: float, height: float, begin: float, end: float, colour: str) -> None:
        left, right = self.place(begin), self.place(end)
        self.parts.append(f'<rect x="{left:.1f}" y="{TOP + ROW * row + down:.1f}" width="{max(right - left, 0.5):.1f}" '
                          f'height="{height}" fill="{colour}"/>')

    def tick(self, row: int, down: float, height: float, at: float, colour: str) -> None:
        x = self.place(at)
        top = TOP + ROW * row + down
        self.parts.append(f'<path d="M{x:.1f} {top:.1f}v{height}" stroke="{colour}" stroke-width="2"/>')

    def legend(self, entries) -> None:
        x = 8.0
        for name, colour in entries:
            self.parts.append(f'<rect x="{x:.0f}" y="34" width="12" height="12" fill="{colour}"/>')
            self.text(x + 16, 45, name)
            x += 30 + 6.2 * len(name)

    def svg(self) -> str:
        height = self.bottom + 42
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
                f'height="{height}" font-family="sans-serif" font-size="12" fill="#24292f">\n'
                '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def rows_of(summary: Summary) -> list[Cell]:
    """Live branches of guests that write at random: the hardest of the patterns."""
    return [cell for cell in summary.branch_cells() if cell.name.endswith("/random/live")]


def labels(cells: list[Cell]) -> list[str]:
    return [cell.title.replace("/random/live", "") for cell in cells]


def round_up(value: float) -> float:
    step = 10.0 ** math.floor(math.log10(value)) / 2
    return math.ceil(value / step) * step


def pause(summary: Summary) -> str:
    """Where guest time stands still: the steps of a branch, above the same API calls made by a plain loop."""
    cells = rows_of(summary)
    most = round_up(max(cell["total_us"].tail for cell in cells) / 1000)
    step = most / 5
    chart = Chart("Pause of a live branch, by step (medians; tick: p99 of the whole)", labels(cells),
                  [step * number for number in range(6)], lambda value: value / most)
    for row, cell in enumerate(cells):
        at = 0.0
        for name, colour in STEPS:
            end = at + cell[f"{name.replace('-', '')}_us"].median / 1000
            chart.bar(row, 6, 16, at, end, colour)
            at = end
        chart.tick(row, 4, 20, cell["total_us"].tail / 1000, "black")
        for down, name, colour in ((24, "bare_sum_us", BASELINE), (31, "armed_bare_sum_us", FLOOR)):
            if cell.get(name):
                chart.bar(row, down, 6, 0, cell[name].median / 1000, colour)
    chart.legend([*STEPS, ("its API calls by a plain loop", BASELINE), ("the same, RAM just write-protected", FLOOR)])
    return chart.svg()


def stall(summary: Summary) -> str:
    """What the guest felt, beside what it feels with nothing branched, and beside a plain copy."""
    kinds = (("stall_us", OURS, "branched"), ("idle_stall_us", BASELINE, "nothing branched"),
             ("plain_copy_stall_us", ACCENT, "a plain O_DIRECT loop writes its RAM, nothing protected"))
    cells = rows_of(summary)
    least, most = 0.03, 10.0
    most = max(most, *(cell[name].worst / 1000 for cell in cells for name, _, _ in kinds if cell.get(name)))
    decades = math.log10(most / least)
    chart = Chart("Longest stall that the guest saw (bar: median, line: p99, tick: worst; logarithmic)", labels(cells),
                  [tick for tick in (0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if tick <= most],
                  lambda value: math.log10(max(value, least) / least) / decades)
    for row, cell in enumerate(cells):
        for down, (name, colour, _) in zip((6, 18, 30), kinds):
            if not cell.get(name):
                continue
            figure = cell[name]
            chart.bar(row, down, 9, least, figure.median / 1000, colour)
            chart.bar(row, down + 4, 1, figure.median / 1000, figure.tail / 1000, colour)
            chart.tick(row, down, 9, figure.worst / 1000, colour)
    chart.legend([(name, colour) for _, colour, name in kinds])
    return chart.svg()


CHARTS = {"branch-pause.svg": pause, "branch-stall.svg": stall}
