#!/usr/bin/python3
"""Draws the dashboard of deploy/grafana as it looked over a load, from what Prometheus answered to its panels.

usage: draw_dashboard.py ANSWERS.json OUT.png

ANSWERS.json is written by COPPICE_DASHBOARD_ANSWERS=ANSWERS.json ctest --preset dev -R monitoring.dashboard$
"""
import json
import math
import pathlib
import re
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402
from PIL import Image  # noqa: E402

DASHBOARD = pathlib.Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards" / "coppice.json"
BACKGROUND, PANEL, TEXT, FAINT, GOOD, BAD = "#111217", "#181b1f", "#ccccdc", "#2c3037", "#73bf69", "#f2495c"
COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#37872d", "#e0b400", "#c4162a"]
INCHES_A_COLUMN, INCHES_A_LINE = 0.56, 0.27  # of Grafana's grid
PREFIXES = {"B": ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")), "": ((1e9, "G"), (1e6, "M"), (1e3, "k"))}


def human(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0 s" if value == 0 else f"{value:.1e} s"
    base = {"bytes": "B", "Bps": "B/s", "ops": "/s", "reqps": "/s"}.get(unit, "")
    for size, prefix in PREFIXES["B" if base.startswith("B") else ""]:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{base}"
    return f"{value:.3g} {base}".rstrip()


def name_of(series: dict) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: series["metric"].get(label.group(1), ""), series["legend"])


def values_of(series: dict) -> tuple[list[float], list[float]]:
    return [float(when) for when, _ in series["values"]], [float(value) for _, value in series["values"]]


def last(series: dict) -> float:
    return next((value for value in reversed(values_of(series)[1]) if not math.isnan(value)), math.nan)


def draw_lines(axes, unit: str, answers: list[dict], start: float, logarithmic: bool) -> None:
    for series, colour in zip(answers, COLOURS * 9):
        times, values = values_of(series)
        axes.plot([when - start for when in times], values, color=colour, linewidth=0.9, label=name_of(series))
    room = 1.4 if len(answers) > 1 else 1.1  # for the legend
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(top=axes.get_ylim()[1] * 10 ** (room - 1))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, axes.get_ylim()[1] * room)
        axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human(value, unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.locator_params(axis="x", nbins=4)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.tick_params(colors=TEXT, labelsize=5, length=0, pad=2)
    if len(answers) > 1:
        columns = 2 if max(len(name_of(series)) for series in answers) > 22 else min(4, len(answers))
        axes.legend(fontsize=4.5, ncols=columns, loc="upper left", labelcolor=TEXT, frameon=False, handlelength=1,
                    borderaxespad=0.2, columnspacing=1)


def draw_number(axes, unit: str, answers: list[dict], panel: dict) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    value = last(answers[0])
    red_from = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
    text = human(value, unit)
    if unit == "dateTimeFromNow":
        text = f"{answers[0]['values'][-1][0] - value / 1000:.0f} s ago"
    if panel["options"].get("textMode") == "name":
        text = name_of(answers[0]).replace(" with ", "\n")
    axes.text(0.5, 0.42, text, color=BAD if red_from and value >= red_from else GOOD, ha="center", va="center",
              fontsize=15 if len(text) < 12 else 8, transform=axes.transAxes)


def draw_bars(axes, unit: str, answers: list[dict]) -> None:
    names, values = [name_of(series) for series in answers], [last(series) for series in answers]
    bars = axes.barh(names, values, color=COLOURS[: len(names)], height=0.6)
    axes.bar_label(bars, [human(value, unit) for value in values], color=TEXT, fontsize=6, padding=3)
    axes.set_xlim(0, 1.25 * max(values))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(colors=TEXT, labelsize=6, length=0)


def draw(panels: list[dict], answers: dict[str, list[dict]], path: pathlib.Path) -> None:
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * INCHES_A_COLUMN, lines * INCHES_A_LINE
    chart = plt.figure(figsize=(width, height), facecolor=BACKGROUND)
    start = min(series["values"][0][0] for found in answers.values() for series in found)
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - place["y"] / lines
        if panel["type"] == "row":
            chart.text(left + 0.004, top - 0.55 / lines, panel["title"].split(":")[0], color=TEXT, fontsize=9,
                       weight="bold", va="center")
            continue
        inside = (0.036, 0.004) if panel["type"] != "stat" else (0.003, 0.003)
        axes = chart.add_axes((left + inside[0], top - (place["h"] - 0.9) / lines, place["w"] / 24 - sum(inside),
                               (place["h"] - 2.1) / lines), facecolor=PANEL)
        for edge in axes.spines.values():
            edge.set_color(FAINT)
        title = panel["title"].replace("$sandbox", "the VM")
        chart.text(left + 0.004, top - 0.6 / lines, title, color=TEXT, fontsize=6.5, va="center")
        unit, found = panel["fieldConfig"]["defaults"]["unit"], answers[panel["title"]]
        if panel["type"] == "timeseries":
            draw_lines(axes, unit, found, start, "scaleDistribution" in panel["fieldConfig"]["defaults"]["custom"])
        elif panel["type"] == "stat":
            draw_number(axes, unit, found, panel)
        else:
            draw_bars(axes, unit, found)
    chart.savefig(path, dpi=110, facecolor=BACKGROUND)
    Image.open(path).convert("RGB").quantize(160).save(path, optimize=True)  # a third of the size


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    answers = {one["title"]: one["series"] for one in json.loads(pathlib.Path(sys.argv[1]).read_text())}
    draw(json.loads(DASHBOARD.read_text())["panels"], answers, pathlib.Path(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
