#!/usr/bin/env python3
"""Makes one small summary of the raw JSON files of coppice-bench and mixed_load.py, all of one machine.

usage: summarise_benchmarks.py RAW... --to FOLDER    (RAW: files, or folders of them)

It is written to FOLDER/CPU-DATE.json, whose path is printed; DATE is that of the newest run. It holds the machine, and
of each run its command and settings, and of each figure how many values there were, their median, p99 and worst, the
target and whether it is met. A run is called like its file. Raw files are not for the tree: each is up to 200 KiB.
"""
import argparse
import json
import pathlib
import re
import sys

COLUMNS = ["count", "median", "p99", "worst", "target", "met"]
MACHINE = ["cpu", "cores", "ram_bytes", "kernel"]  # what makes it the same machine
PLACE = ["hypervisor", "kvm_by", "root_file_system", "root_device", "free_page_reporting_order"]
RUN = ["version", "build", "commit", "time", "seconds", "load_average", "cpu_busy_percent", "cpu_steal_percent", "note"]
# Steps of baselines, what other figures follow from, and what of an image was not copied: a run itself prints them.
LEFT_OUT = re.compile(r"(repeated_|armed_)?bare_(pause|snapshot|resume)_us|median_(pause|snapshot|resume)_to_armed_bare"
                      r"|p99_stall_above_p99_idle_us|copy_steps_per_s|copy_us|(bulk|zero|hole)_mib")
# In a command, left out where they are as coppice-bench assumes (`--check --bench` of tabulate_benchmarks.py compares).
DEFAULTS = {
    "branch": {"memory": "256M", "working-set": "16M", "pattern": "random", "mode": "live", "branches": "30"},
    "copy": {"memory": "1G", "rounds": "10"},
    "fault": {"memory": "64M", "writers": "4", "rounds": "5"},
    "actors": {"memory": "256M", "branches": "50"},
    "fleet": {"sandboxes": "200", "memory": "16M", "rate": "20", "duration": "60s", "rest": "100ms", "warm-up": "2s",
              "idle": "10s", "verify-each": "20", "askers": "16"},
    "soak": {"branches": "1000", "overlap": "4"},
}
ORDER = ["memory", "working-set", "pattern", "mode", "sandboxes", "rate", "duration", "branches"]  # others after these


def rounded(value: float) -> float:
    """Five significant digits: more than any figure is worth."""
    short = float(f"{value:.5g}")
    return int(short) if short == int(short) else short


def row(figure: dict) -> list:
    made = [figure["count"], *(rounded(figure[name]) for name in ("median", "p99", "worst"))]
    target = figure.get("target")
    if target is None:
        return made
    return made + [("<= " if target["at_most"] else ">= ") + f"{target['limit']:g}",
                   target["met"] if target["met"] is not None else "not judged: " + target["not_judged"]]


def command_of(benchmark: str, settings: dict) -> str:
    words = ["coppice-bench", benchmark]
    names = [name for name in ORDER if name in settings] + sorted(name for name in settings if name not in ORDER)
    for name in names:
        value = settings[name]
        if name == "root" or value in ("", "false", DEFAULTS[benchmark].get(name)):
            continue
        words.append(f"--{name}")
        if value != "true":
            words.append(pathlib.Path(value).name if name == "vmm" else value)
    return " ".join(words)


def of_bench(raw: dict) -> dict:
    cells: dict[str, dict] = {}
    for figure in raw["figures"]:
        if not LEFT_OUT.fullmatch(figure["name"]):
            cells.setdefault(figure["cell"], {})[figure["name"]] = row(figure)
    vmm = raw["environment"].get("vmm")
    return {"benchmark": raw["benchmark"], "command": command_of(raw["benchmark"], raw["settings"]),
            "vmm": f"{vmm['name']} {vmm['version']}" if vmm else None, "settings": raw["settings"], "figures": cells}


def of_mixed_load(raw: dict) -> dict:
    """The requests' times, and what mixed_load.py judges."""
    times = {kind: [one[name] for name in ("count", "median_ms", "p99_ms", "worst_ms")]
             for kind, one in raw["requests"].items()}
    met = {what.split(":")[0]: held for what, held in raw["verdict"].items()}
    failed, growth, memory = sum(raw["failures"].values()), raw["growth_bytes"] / 2**20, raw["daemon_anonymous_bytes"]
    transport, seconds, rate = raw["url"].split(":")[0], f"{raw['seconds']:g}", f"{raw['rate_per_second']:g}"
    times["GET"] += ["<= 10 (p99)", met["99th percentile of GETs"]]
    return {"benchmark": "mixed load",
            "command": f"python3 tools/mixed_load.py --kernel JOURNAL --seconds {seconds} --rate {rate}"
                       + (" --url https://HOST:PORT" if transport == "https" else ""),
            "settings": {"transport": transport, "seconds": seconds, "rate": rate},
            "figures": {"ms": times, "": {
                "requests": [1] + 3 * [sum(one[0] for one in times.values()) + failed],
                "failed_requests": [1] + 3 * [failed] + ["<= 0", met["failed requests"]],
                "daemon_mib_at_the_end": [1] + 3 * [rounded(memory[-1] / 2**20)],
                "daemon_growth_mib": [1] + 3 * [rounded(growth)] + ["<= 4", met["the daemon's memory"]]}}}


def run_of(raw: dict, machine: dict) -> dict:
    made = of_mixed_load(raw) if "requests" in raw else of_bench(raw)
    where = raw["environment"]
    told = {name: where[name] for name in RUN if where.get(name) is not None}
    other = {name: where[name] for name in PLACE if name in where and where[name] != machine.get(name)}
    told = {name: rounded(value) if isinstance(value, float) else value for name, value in told.items()}
    figures = made.pop("figures")
    return {name: value for name, value in (made | told | other).items() if value is not None} | {"figures": figures}


def summary_of(files: dict[str, dict]) -> dict:
    environments = [raw["environment"] for raw in files.values()]
    same = [{name: where.get(name) for name in MACHINE} for where in environments]
    if any(each != same[0] for each in same):
        others = next(name for name, each in zip(files, same) if each != same[0])
        raise ValueError(f"{next(iter(files))} and {others} are of two machines: make a summary of each")
    machine = dict(same[0])
    for where in environments:
        for name in PLACE:
            if name in where:
                machine.setdefault(name, where[name])
    return {"machine": machine, "columns": COLUMNS,
            "runs": {name: run_of(raw, machine) for name, raw in sorted(files.items())}}


def name_of(summary: dict) -> str:
    cpu = re.sub(r"[^a-z0-9]+", "-", (summary["machine"]["cpu"] or "unknown").lower()).strip("-")
    return f"{cpu}-{max(run['time'] for run in summary['runs'].values())[:10]}"


def text_of(value, depth: int = 0) -> str:
    """JSON with a line for each figure, so that a difference can be read."""
    flat = not isinstance(value, dict) or not any(isinstance(each, (dict, list)) for each in value.values())
    if flat:
        return json.dumps(value, ensure_ascii=False)
    indent = " " * (depth + 1)
    lines = [f"{indent}{json.dumps(name, ensure_ascii=False)}: {text_of(each, depth + 1)}"
             for name, each in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def read(paths: list[pathlib.Path]) -> dict[str, dict]:
    files = {}
    for path in [each for given in paths for each in (sorted(given.glob("*.json")) if given.is_dir() else [given])]:
        raw = json.loads(path.read_text())
        if "environment" not in raw or not ("figures" in raw or "requests" in raw):
            raise ValueError(f"{path} is no raw file of coppice-bench or tools/mixed_load.py")
        if path.stem in files:
            raise ValueError(f"two files are called {path.name}: a run is called like its file, so rename one")
        files[path.stem] = raw
    if not files:
        raise ValueError(f"no raw file in {', '.join(map(str, paths))}: `./dev bench` writes some to build/bench")
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", nargs="+", type=pathlib.Path, help="raw JSON files, or folders of them")
    parser.add_argument("--to", required=True, type=pathlib.Path, help="folder of the summary")
    options = parser.parse_args()
    try:
        summary = summary_of(read(options.raw))
        path = options.to / f"{name_of(summary)}.json"
        options.to.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(summary) + "\n")
    except (OSError, ValueError) as problem:
        print(f"summarise_benchmarks.py: {problem}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
