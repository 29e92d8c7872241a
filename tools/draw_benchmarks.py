#!/usr/bin/python3
"""Draws the charts of docs/benchmarks/ from the JSON files of coppice-bench that are there.

usage: draw_benchmarks.py FOLDER    (each FOLDER/NAME.json that is known becomes FOLDER/NAME*.svg)
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "coppice"  # the same figures give the same file
import matplotlib.pyplot as plt  # noqa: E402

OURS, BASELINE, FLOOR, GOOD, ACCENT, LIMIT = "#1f6f5c", "#b0b7bd", "#d7dbde", "#7fb8a8", "#d98e04", "#c0392b"
STEP_COLOURS = {"pause_us": OURS, "snapshot_us": "#4c9a86", "rearm_us": ACCENT, "resume_us": "#9cc9bc"}


class Report:
    """One run: its figures by (cell, name)."""

    def __init__(self, path: pathlib.Path):
        self.data = json.loads(path.read_text())
        self.figures = {(one["cell"], one["name"]): one for one in self.data["figures"]}

    def cells(self, name: str) -> list[str]:
        return [cell for cell, what in self.figures if what == name]

    def get(self, cell: str, name: str, statistic: str = "median") -> float:
        return self.figures.get((cell, name), {}).get(statistic, 0.0)

    def values(self, cell: str, name: str) -> list[float]:
        one = self.figures.get((cell, name), {})
        return one.get("values", [one["median"]] if one else [])

    def limit(self, cell: str, name: str):
        return self.figures.get((cell, name), {}).get("target", {}).get("limit")

    def machine(self) -> str:
        where = self.data["environment"] or {}
        load = where.get("load_average")
        parts = [where.get("cpu"), f"{where.get('cores')} cores", where.get("kernel"),
                 f"load {load:.1f}" if load is not None else None, f"commit {where.get('commit')}"]
        return ", ".join(str(part) for part in parts if part)


def save(chart, report: Report, path: pathlib.Path, title: str) -> None:
    chart.suptitle(title, fontsize=12)
    chart.text(0.01, 0.005, report.machine(), fontsize=6, color="#666666")
    chart.tight_layout(rect=(0, 0.02, 1, 1))
    chart.savefig(path, metadata={"Date": None})
    plt.close(chart)
    print(path)


def label_bars(axes, bars, form: str) -> None:
    axes.bar_label(bars, fmt=form, fontsize=7, padding=2)


def legend_beside(axes, *handles) -> None:
    axes.legend(*handles, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def draw_pause(report: Report, folder: pathlib.Path) -> None:
    """Where guest time stands still: the steps of a live branch, stacked, beside the bare calls."""
    cells = [cell for cell in report.cells("total_us") if cell.endswith("/live")]
    if not cells:
        return
    chart, axes = plt.subplots(figsize=(9, 1.2 + 0.6 * len(cells)))
    rows = range(len(cells))
    left = [0.0] * len(cells)
    for step, colour in STEP_COLOURS.items():
        widths = [report.get(cell, step) / 1000 for cell in cells]
        axes.barh([row - 0.18 for row in rows], widths, 0.34, left, color=colour, label=step.removesuffix("_us"))
        left = [a + b for a, b in zip(left, widths)]
    for name, shift, colour, label in (("bare_sum_us", 0.12, BASELINE, "the three bare API calls"),
                                       ("armed_bare_sum_us", 0.32, FLOOR, "the same, all RAM just write-protected")):
        bare = axes.barh([row + shift for row in rows], [report.get(cell, name) / 1000 for cell in cells], 0.18,
                         color=colour, label=label)
        label_bars(axes, bare, "%.2f")
    axes.plot([report.get(cell, "total_us", "p99") / 1000 for cell in cells], [row - 0.18 for row in rows], "k|",
              markersize=12, label="p99 of the whole pause")
    axes.set_yticks(list(rows), cells, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms (medians)")
    legend_beside(axes)
    save(chart, report, folder / "branch-pause.svg", "Pause of a live branch, by step")


def draw_stall(report: Report, folder: pathlib.Path) -> None:
    """What the guest felt: the longest stall of each branch beside those of idle windows as long."""
    cells = report.cells("stall_us")
    if not cells:
        return
    chart, axes = plt.subplots(figsize=(9, 1.4 + 0.9 * len(cells)))
    kinds = (("stall_us", OURS, "while branched"), ("idle_stall_us", BASELINE, "nothing branched"),
             ("plain_copy_stall_us", LIMIT, "a plain O_DIRECT loop writes\nthe same, nothing protected"),
             ("plain_digests_stall_us", ACCENT, "the same loop, computing\nthe digests, too"))
    places, boxes, colours = [], [], []
    for row, cell in enumerate(cells):
        for shift, (name, colour, _) in zip((-0.3, -0.1, 0.1, 0.3), kinds):
            if not report.values(cell, name):
                continue
            places.append(row + shift)
            boxes.append([max(value, 10) / 1000 for value in report.values(cell, name)])
            colours.append(colour)
    drawn = axes.boxplot(boxes, positions=places, widths=0.17, vert=False, patch_artist=True, whis=(0, 100),
                         medianprops={"color": "black"})
    for box, colour in zip(drawn["boxes"], colours):
        box.set_facecolor(colour)
    axes.set_xscale("log")
    lines, names = [], []
    for _, colour, name in kinds:
        if colour in colours:
            lines.append(drawn["boxes"][colours.index(colour)])
            names.append(name)
    axes.set_yticks(range(len(cells)), cells, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms, logarithmic; box: quartiles, whiskers: best and worst")
    legend_beside(axes, lines, names)
    save(chart, report, folder / "branch-stall.svg", "Longest stall that the guest saw")


def draw_speed(report: Report, folder: pathlib.Path) -> None:
    """The guest's speed while it is copied, as a share of its idle speed, and its upper bound; and the copy's speed."""
    cells = report.cells("copy_to_idle_speed")
    if not cells:
        return
    chart, (left, right) = plt.subplots(1, 2, figsize=(10, 1.4 + 0.5 * len(cells)), sharey=True)
    rows = list(range(len(cells)))
    speeds = left.barh(rows, [report.get(cell, "copy_to_idle_speed") for cell in cells], 0.6, color=OURS)
    left.bar_label(speeds, fmt="%.2f", fontsize=7, label_type="center", color="white")
    limit = report.limit(cells[0], "copy_to_idle_speed")
    if limit is not None:
        left.axvline(limit, color=LIMIT, linestyle="--", linewidth=1)
    bounded = [row for row in rows if report.values(cells[row], "speed_at_bare_faults")]
    left.plot([report.get(cells[row], "speed_at_bare_faults") for row in bounded], bounded, "|", color="black",
              markersize=20)
    left.set_xlim(0, 1.1)
    left.set_xlabel("guest's speed while copied / idle (dashed: target; black: bound)")
    label_bars(right, right.barh(rows, [report.get(cell, "copy_gb_per_s") for cell in cells], 0.6, color=GOOD), "%.2f")
    right.set_xlabel("copy, GB/s")
    right.margins(x=0.1)
    left.set_yticks(rows, cells, fontsize=8)
    left.invert_yaxis()
    save(chart, report, folder / "branch-speed.svg", "Speed of guest and copy")


def draw_branch(report: Report, folder: pathlib.Path) -> None:
    draw_pause(report, folder)
    draw_stall(report, folder)
    draw_speed(report, folder)


def draw_copy(report: Report, folder: pathlib.Path) -> None:
    """GB/s of the engine, in green, beside what writes the same bytes without it, in grey."""
    names = ["engine_to_disk_gb_per_s", "o_direct_gb_per_s", "o_direct_digests_gb_per_s", "buffered_fsync_gb_per_s",
             "buffered_gb_per_s", "engine_to_reused_tmpfs_gb_per_s", "memcpy_to_reused_tmpfs_gb_per_s",
             "pwrite_to_reused_tmpfs_gb_per_s", "pwrite_digests_to_reused_tmpfs_gb_per_s", "engine_to_new_tmpfs_gb_per_s"]
    cells = report.cells(names[0])
    chart, all_axes = plt.subplots(1, len(cells), figsize=(max(7, 5 * len(cells)), 3.6), squeeze=False, sharey=True)
    for axes, cell in zip(all_axes[0], cells):
        bars = axes.barh(names, [report.get(cell, name) for name in names],
                         color=[OURS if name.startswith("engine") else BASELINE for name in names])
        label_bars(axes, bars, "%.2f")
        axes.set_title(cell, fontsize=9)
        axes.set_xlabel("GB/s (medians)")
        axes.tick_params(axis="y", labelsize=8)
    all_axes[0][0].invert_yaxis()
    save(chart, report, folder / "copy.svg", "The copy engine alone")


def draw_fault(report: Report, folder: pathlib.Path) -> None:
    """Latency of single faults; pages per second in storms."""
    chart, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    cells = report.cells("fault_us")
    width = 0.2
    for place, (name, statistic, colour) in enumerate((("fault_us", "median", OURS), ("fault_us", "p99", GOOD),
                                                       ("bare_fault_us", "median", BASELINE),
                                                       ("bare_fault_us", "p99", FLOOR))):
        bars = left.bar([row + (place - 1.5) * width for row in range(len(cells))],
                        [report.get(cell, name, statistic) for cell in cells], width, color=colour,
                        label=f"{'engine' if name == 'fault_us' else 'bare kernel'}, {statistic}")
        label_bars(left, bars, "%.0f")
    left.set_xticks(range(len(cells)), cells, fontsize=8)
    left.set_yscale("log")
    left.set_ylabel("us a fault, logarithmic")
    left.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    storms = report.cells("pages_lifted_per_s")
    writers = [cell.rsplit(" ", 1)[1] for cell in storms]
    right.plot(writers, [report.get(cell, "pages_lifted_per_s") for cell in storms], "o-", color=OURS,
               label="engine: pages captured and lifted")
    right.plot(writers, [report.get(cell, "bare_faults_per_s") for cell in storms], "o-", color=BASELINE,
               label="bare kernel: pages lifted")
    right.set_ylim(bottom=0)
    right.set_xlabel("writers at once")
    right.set_ylabel("pages a second")
    right.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1))
    save(chart, report, folder / "fault.svg", "Write faults, one by one and in storms")


def draw_actors(report: Report, folder: pathlib.Path) -> None:
    """The pause by step: by the actors, and by a plain loop that makes the same calls."""
    chart, axes = plt.subplots(figsize=(8, 2.4))
    left = [0.0, 0.0]
    cells = ["actors", "plain loop"]
    for step, colour in STEP_COLOURS.items():
        widths = [report.get(cell, step) for cell in cells]
        axes.barh(cells, widths, 0.5, left, color=colour, label=step.removesuffix("_us"))
        left = [a + b for a, b in zip(left, widths)]
    axes.plot([report.get(cell, "total_us") for cell in cells], cells, "k|", markersize=18, label="whole pause")
    axes.invert_yaxis()
    axes.set_xlabel(f"us (medians); the actors add {report.get('difference', 'median_added_us'):.0f} us")
    legend_beside(axes)
    save(chart, report, folder / "actors.svg", "What the actors add")


def draw_fleet(report: Report, folder: pathlib.Path) -> None:
    """All pauses and stalls of the load test, by rank."""
    chart, axes = plt.subplots(figsize=(8, 3.6))
    for name, colour, label in (("pause_us", OURS, "pause"), ("stall_us", ACCENT, "stall seen by the guest"),
                                ("idle_stall_us", BASELINE, "stall, nothing branched")):
        values = sorted(value / 1000 for value in report.values("", name))
        if values:
            axes.plot([100 * (rank + 1) / len(values) for rank in range(len(values))], values, color=colour, label=label)
    limit = report.limit("", "p99_pause_us")
    if limit is not None:
        axes.plot([99], [limit / 1000], "v", color=LIMIT, label="target of the pause's p99")
    axes.set_yscale("log")
    axes.set_xlabel("percent of the branches that stay below")
    axes.set_ylabel("ms, logarithmic")
    legend_beside(axes)
    settings = report.data["settings"]
    failed = report.get("", "branches_failed")
    save(chart, report, folder / "fleet.svg",
         f"{settings.get('instances')} VMs, {settings.get('rate')} branches a second: "
         f"{report.get('', 'branches_done'):.0f} done, {failed:.0f} failed")


DRAWN = {"branch": draw_branch, "copy": draw_copy, "fault": draw_fault, "actors": draw_actors, "fleet": draw_fleet}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = pathlib.Path(sys.argv[1])
    for name, draw in DRAWN.items():
        path = folder / f"{name}.json"
        if path.exists():
            draw(Report(path), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
