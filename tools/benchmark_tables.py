"""The blocks of docs/benchmarks/ and README.md: tables, sentences and commands, each of a summary."""
import textwrap
from decimal import ROUND_HALF_UP, Decimal

from benchmark_summary import Figure, Run, Summary


# Cells of tables. A figure that is not there is an empty one.


def number(value: float, digits: int) -> str:
    """Rounded as people do it; no more digits than say something."""
    digits = min(digits, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else digits)
    return f"{Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):,f}"


def scaled(figure: Figure | None, unit: float, digits: int, tail: bool = True) -> str:
    if figure is None:
        return ""
    text = number(figure.median / unit, digits)
    return text + f" ({number(figure.tail / unit, digits)})" if tail else text


def ms(figure: Figure | None, digits: int = 1) -> str:
    return scaled(figure, 1000, digits)


def plain(figure: Figure | None, digits: int = 0) -> str:
    return scaled(figure, 1, digits, tail=False)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "".join(f" {text} |" if text else " |" for text in line) + "\n" for line in lines)


def columns_of(runs: list[Run], rows: list[tuple]) -> str:
    """A table with a column for each run: rows are (words, cell -> text)."""
    made = [[words, *(text(run.cells[""]) for run in runs)] for words, text in rows]
    return table(["", *(f"`{run.name}`" for run in runs)], made)


# What stands beside a table.


def prose(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def commands(runs: list[Run]) -> str:
    lines = ["```sh"]
    for run in runs:
        load = f", load before {run.data['load_average']:.1f}" if "load_average" in run.data else ""
        lines += [f"# {run.name}: {run.data['time'][:16].replace('T', ' ')}, commit {run.data['commit'][:12]}{load}",
                  run.command]
    return "\n".join([*lines, "```\n"])


def verdict(runs: list[Run]) -> str:
    missed = [f"`{name}` ({run.name})" for run in runs for name in run.missed]
    return prose("Targets missed: " + ", ".join(missed) + ".") if missed else "No target was missed.\n"


def notes(runs: list[Run]) -> str:
    return "".join(prose(f"`{run.name}`: {run.data['note']}.") for run in runs if "note" in run.data)


def spread(figures: list[Figure | None], digits: int) -> str:
    medians = [figure.median for figure in figures if figure]
    ends = dict.fromkeys(number(end(medians), digits) for end in (min, max))  # one of them if they are the same
    return " to ".join(ends)


# The blocks. Each returns "" where the summary has no run for it.


def machine(summary: Summary) -> str:
    at = summary.machine
    told = [f"{at['cpu']}, {at['cores']} CPUs, {at['ram_bytes'] / 2**30:.1f} GiB"
            + (", inside a VM" if at.get("hypervisor") else ""), at["kernel"]]
    if at.get("kvm_by"):
        told.append(f"KVM: {at['kvm_by']}")
    if at.get("root_file_system"):
        told.append(f"images on {at['root_file_system']} ({at['root_device']})")
    if "free_page_reporting_order" in at:
        told.append("free page reporting " + ("off" if at["free_page_reporting_order"] is None else "ON"))
    return prose("; ".join(told) + ".")


def branch(summary: Summary) -> str:
    cells = summary.branch_cells()
    if not cells:
        return ""
    runs = list(dict.fromkeys(cell.run for cell in cells))
    rows = []
    for cell in cells:
        ready = cell.get("ready_ms")
        rows.append([cell.title, str(cell["total_us"].count), ms(cell["total_us"], 2), ms(cell.get("bare_sum_us"), 2),
                     ms(cell["stall_us"]), ms(cell.get("idle_stall_us")), ms(cell.get("plain_copy_stall_us")),
                     plain(cell.get("copy_to_idle_speed"), 2), plain(cell.get("copy_gb_per_s"), 1),
                     scaled(ready, 1000, 2, tail=False), cell.run.name])
    live = [cell for cell in cells if cell.name.endswith("/live")]
    ratios = [cell.get("median_total_to_bare") for cell in live]
    floors = [cell.get("median_total_to_armed_bare") for cell in live]
    said = (f"Bad pages: {sum(cell['bad_pages'].median for cell in cells)} in all rows together. The pause of a live "
            f"branch is {spread(ratios, 2)} times its API calls alone, and {spread(floors, 2)} times the floor.")
    around = [cell.get("faults_per_page_dirtied") for cell in cells if cell.get("faults_per_page_dirtied")]
    if around:
        said += f" Faults per page that a sequential writer dirtied: {spread(around, 3)}."
    head = ["RAM/working set/pattern/mode", "branches", "whole pause, ms", "its API calls alone", "longest stall, ms",
            "nothing branched", "a plain copy", "guest's speed", "copy, GB/s", "ready, s", "run"]
    return table(head, rows) + "\n" + prose(said) + verdict(runs) + "\n" + commands(runs)


COPY_ROWS = (("to the disk", "engine_to_disk_gb_per_s"), ("O_DIRECT", "o_direct_gb_per_s"),
             ("O_DIRECT, with digests", "o_direct_digests_gb_per_s"),
             ("buffered and synced", "buffered_fsync_gb_per_s"), ("buffered, not synced", "buffered_gb_per_s"),
             ("to pages of tmpfs", "engine_to_reused_tmpfs_gb_per_s"),
             ("memcpy to such pages", "memcpy_to_reused_tmpfs_gb_per_s"), ("pwrite", "pwrite_to_reused_tmpfs_gb_per_s"),
             ("pwrite, with digests", "pwrite_digests_to_reused_tmpfs_gb_per_s"),
             ("to new pages of tmpfs", "engine_to_new_tmpfs_gb_per_s"))


def copy(summary: Summary) -> str:
    runs = summary.of("copy")
    if not runs:
        return ""
    rows, ratios = [], []
    for cell in runs[0].cells.values():
        for words, name in COPY_ROWS:
            figure = cell[name]
            who = "the engine " if name.startswith("engine") else ""
            rows.append([cell.name, who + words, number(figure.median, 2), number(figure.worst, 2)])
        for words, name in (("O_DIRECT", "engine_to_o_direct_ratio"), ("a memcpy", "engine_to_memcpy_ratio"),
                            ("pwrite with digests", "engine_to_pwrite_digests_ratio")):
            target = cell[name].target.replace(">=", "at least")
            ratios.append(f"{number(cell[name].median, 2)} of {words}" + (f" (target: {target})" if target else ""))
    said = prose("The engine reaches " + ", ".join(ratios) + ".")
    made = table(["RAM", "what writes", "GB/s, median", "worst"], rows)
    return made + "\n" + said + verdict(runs) + "\n" + commands(runs)


def fault(summary: Summary) -> str:
    runs = summary.of("fault")
    if not runs:
        return ""
    rows = []
    for cell in runs[0].cells.values():

        def storm(name: str) -> str:
            if not cell.get(f"{name}_median_us"):
                return scaled(cell.get(name.replace("storm_", "") + "_us"), 1, 0)
            return f"{plain(cell[f'{name}_median_us'])} ({plain(cell[f'{name}_p99_us'])})"

        rows.append([cell.name, storm("storm_fault"), storm("bare_storm_fault"), plain(cell.get("pages_per_fault"), 1),
                     plain(cell.get("pages_lifted_per_s")), plain(cell.get("bare_faults_per_s"))])
    head = ["", "engine, us a fault", "bare kernel", "engine, pages a fault", "engine, pages a second", "bare kernel"]
    return table(head, rows) + "\n" + commands(runs)


def actors(summary: Summary) -> str:
    runs = summary.of("actors")
    if not runs:
        return ""
    cells = runs[0].cells
    rows = [[step, ms(cells["actors"][f"{name}_us"], 2), ms(cells["plain loop"][f"{name}_us"], 2)]
            for step, name in (("whole pause", "total"), ("pause", "pause"), ("snapshot", "snapshot"),
                               ("re-arm", "rearm"), ("resume", "resume"))]
    added, ratio = cells["difference"]["median_added_us"], cells["difference"]["median_to_plain_loop"]
    said = f"The actors add {plain(added)} us to the median: {plain(ratio, 2)} times."
    return table(["ms", "actors", "plain loop"], rows) + "\n" + said + " " + verdict(runs) + "\n" + commands(runs)


def fleet(summary: Summary) -> str:
    runs = summary.of("fleet")
    if not runs:
        return ""
    rows = [("ready of asked, failed", lambda of: f"{plain(of['branches_done'])} of {plain(of['branches_asked'])}, "
                                                  f"{plain(of['branches_failed'])}"),
            ("images verified, bad pages", lambda of: f"{plain(of['images_verified'])}, {plain(of['bad_pages'])}"),
            ("pause, ms", lambda of: ms(of["pause_us"], 2)),
            ("its API calls alone", lambda of: ms(of["bare_sum_us"], 2)),
            ("longest stall, ms", lambda of: ms(of["stall_us"], 2)),
            ("nothing branched", lambda of: ms(of["idle_stall_us"], 2)),
            ("ready, ms", lambda of: scaled(of["ready_ms"], 1, 0)),
            ("daemon's CPU, idle and busy, % of a core", lambda of: f"{plain(of['daemon_idle_cpu_percent'])}, "
                                                                    f"{plain(of['daemon_busy_cpu_percent'])}"),
            ("daemon's memory, KiB a VM", lambda of: plain(of["daemon_kib_a_sandbox"])),
            ("start of a VM, ms", lambda of: plain(of["start_ms_a_sandbox"]))]
    return columns_of(runs, rows) + "\n" + verdict(runs) + "\n" + commands(runs)


def soak(summary: Summary) -> str:
    runs = summary.of("soak")
    if not runs:
        return ""
    rows = [("VMM", lambda of: of.run.data["vmm"]),
            ("branches done, failed", lambda of: f"{plain(of['branches_done'])}, {plain(of['branches_failed'])}"),
            ("bad pages, gaps", lambda of: f"{plain(of['bad_pages'])}, {plain(of['gaps'])}"),
            ("pause, ms", lambda of: ms(of["pause_us"], 1)),
            ("daemon's growth, KiB", lambda of: plain(of["daemon_growth_kib"])),
            ("threads, open files more", lambda of: f"{plain(of['thread_growth'])}, {plain(of['open_file_growth'])}")]
    return columns_of(runs, rows) + "\n" + verdict(runs) + "\n" + commands(runs)


def mixed_load(summary: Summary) -> str:
    runs = summary.of("mixed load")
    if not runs:
        return ""
    rows = [["requests, failed", *(f"{plain(run.cells['']['requests'])}, {plain(run.cells['']['failed_requests'])}"
                                   for run in runs)]]
    for kind in runs[0].cells["ms"].figures:
        rows.append([f"{kind}, ms", *(scaled(run.cells["ms"].get(kind), 1, 1) for run in runs)])
    for words, name, digits in (("daemon's memory at the end, MiB", "daemon_mib_at_the_end", 1),
                                ("growth in the second half, MiB", "daemon_growth_mib", 2)):
        rows.append([words, *(plain(run.cells[""][name], digits) for run in runs)])
    rows.append(["over", *(run.data["settings"]["transport"] for run in runs)])
    head = ["", *(f"`{run.name}`" for run in runs)]
    return table(head, rows) + "\n" + verdict(runs) + notes(runs) + "\n" + commands(runs)


# Of the README: the few figures that say most.


def measured_cells(summary: Summary):
    """Live branches of guests that write at random to 16 MiB: each size of coppice-vmm, the largest of Firecracker."""
    cells = [cell for cell in summary.branch_cells() if cell.name.endswith("/16M/random/live")]
    firecracker = [cell for cell in cells if cell.run.is_firecracker]
    return [cell for cell in cells if cell not in firecracker], firecracker[-1:]


def size(name: str) -> str:
    return name.split("/")[0].replace("M", " MiB").replace("G", " GiB")


def measured_branches(summary: Summary) -> str:
    plain_ones, firecracker = measured_cells(summary)
    if not plain_ones:
        return ""
    rows = [[size(cell.name) + (", " + cell.run.data["vmm"] if cell.run.is_firecracker else ""),
             ms(cell["total_us"], 2), ms(cell["bare_sum_us"], 2), ms(cell["stall_us"]), ms(cell["idle_stall_us"]),
             plain(cell["copy_to_idle_speed"], 2), scaled(cell["ready_ms"], 1000, 1, tail=False),
             f"`{cell.run.command}`"]
            for cell in [*plain_ones, *firecracker]]
    head = ["guest's RAM", "pause, ms", "its API calls alone", "stall, ms", "nothing branched", "guest's speed",
            "ready, s", "made by"]
    return table(head, rows)


def measured_runs(summary: Summary) -> str:
    rows = []
    for run in summary.of("fleet"):
        of, given = run.cells[""], run.data["settings"]
        if given["verify-each"] != "1":
            continue
        rows.append([f"{given['sandboxes']} VMs of {given['memory'][:-1]} MiB, {given['rate']} branches a second for "
                     f"{given['duration'][:-1]} s",
                     f"{plain(of['branches_done'])} of {plain(of['branches_asked'])} ready and verified, "
                     f"{plain(of['bad_pages'])} bad pages; pause 99 % within {number(of['pause_us'].p99 / 1000, 1)} ms",
                     f"`{run.command}`"])
    for run in summary.of("soak"):
        of = run.cells[""]
        rows.append([f"{plain(of['branches_done'])} branches, {run.data['settings']['overlap']} of one VM at a time"
                     + (", Firecracker" if run.is_firecracker else ""),
                     f"{plain(of['branches_failed'])} failed, {plain(of['bad_pages'])} bad pages; "
                     f"pause {ms(of['pause_us'])} ms; "
                     f"{number(of['daemon_growth_kib'].median / 1024, 1)} MiB of memory more", f"`{run.command}`"])
    for run in summary.of("mixed load"):
        get, failed = run.cells["ms"]["GET"], plain(run.cells[""]["failed_requests"])
        given = run.data["settings"]
        rows.append([f"mixed load for {given['seconds']} s, {given['rate']} requests a second"
                     + (", TLS" if given["transport"] == "https" else ""),
                     f"{plain(run.cells['']['requests'])} requests, {failed} failed; "
                     f"99 % of GETs within {number(get.p99, 1)} ms"
                     + (" (target 10: missed)" if get.met is False else ""), f"`{run.command}`"])
    return table(["", "outcome", "made by"], rows) if rows else ""


BLOCKS = {"machine": machine, "branch": branch, "copy": copy, "fault": fault, "actors": actors, "fleet": fleet,
          "soak": soak, "mixed-load": mixed_load, "measured-branches": measured_branches,
          "measured-runs": measured_runs}
