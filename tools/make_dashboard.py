#!/usr/bin/env python3
"""Writes deploy/grafana/dashboards/coppice.json, Grafana's form of the panels below.

usage: make_dashboard.py [--check]    (--check: exit with 1 if the file is not what would be written)
"""
import json
import pathlib
import sys

TARGET = pathlib.Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards" / "coppice.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HOSTS = 'job="coppice", instance=~"$instance"'
WINDOW = "$__rate_interval"


def rate(metric: str, labels: str = "") -> str:
    return f"rate({metric}{{{HOSTS}{labels}}}[{WINDOW}])"


def quantiles(metric: str, by: str = "", legend: str = "", labels: str = "") -> list[tuple[str, str]]:
    """Median and p99 of a histogram."""
    grouped = ", ".join(part for part in ("le", by) if part)
    buckets = f"sum by ({grouped}) ({rate(f'{metric}_bucket', labels)})"
    return [(f"histogram_quantile({value}, {buckets})", f"{legend}{name}")
            for value, name in ((0.5, "p50"), (0.99, "p99"))]


# Each row: its title, then panels: (title, what it tells, kind, unit, width of 24, [(query, legend)], red from).
ROWS = [
    ("Overview", [
        ("Up", "Whether Prometheus reaches the daemons: 1 or 0.", "stat", "short", 3,
         [(f"up{{{HOSTS}}}", "{{instance}}")], None),
        ("Running since", "The latest start of each daemon.", "stat", "dateTimeFromNow", 3,
         [(f"process_start_time_seconds{{{HOSTS}}} * 1000", "{{instance}}")], None),
        ("Stuck sandboxes", "Paused, and their resume is being retried.", "stat", "short", 3,
         [(f'sum(coppice_sandboxes{{{HOSTS}, state="stuck"}})', "stuck")], 1),
        ("Pause, p99 of 5 min", "Of live branches.", "stat", "s", 3,
         [(f'max(instance_mode:coppice_branch_pause_seconds:p99_5m{{{HOSTS}, mode="live"}})', "p99")], 0.01),
        ("Pauses over 10 ms, 1 h", "The objective is 1 % of the live branches.", "stat", "percentunit", 3,
         [(f"max(instance:coppice_pauses_over_10ms:ratio_rate1h{{{HOSTS}}})", "over 10 ms")], 0.01),
        ("Branches failed, 15 min", "Of those not cancelled; without names that were taken.", "stat", "percentunit", 3,
         [(f"max(instance:coppice_branches_failed:ratio_rate15m{{{HOSTS}}})", "failed")], 0.05),
        ("Disk free", "Of the fullest disk.", "stat", "percentunit", 3,
         [(f"min(instance:coppice_store_free:ratio{{{HOSTS}}})", "free")], None),
        ("Version", "coppiced and its VMM.", "stat", "short", 3,
         [(f"count by (version, vmm) (coppice_build_info{{{HOSTS}}})", "{{version}} with {{vmm}}")], None),
        ("Branches", "Ended, by how.", "timeseries", "ops", 8,
         [(f"sum by (outcome) ({rate('coppice_branches_total')})", "{{outcome}}")], None),
        ("Pause", "Time for which all vCPUs of a parent stand still.", "timeseries", "s", 8,
         quantiles("coppice_branch_pause_seconds", "mode", "{{mode}} "), None),
        ("Longest wait of a vCPU", "Per ready branch: its pause, or a longer write fault.", "timeseries", "s", 8,
         quantiles("coppice_branch_stall_seconds", "mode", "{{mode}} "), None),
    ]),
    ("Fleet", [
        ("Sandboxes", "By state.", "timeseries", "short", 6,
         [(f"sum by (state) (coppice_sandboxes{{{HOSTS}}})", "{{state}}")], None),
        ("Under way and waiting", "Branches in flight; VMs to be started; work for the disk.", "timeseries", "short", 6,
         [(f"sum(coppice_branches_in_flight{{{HOSTS}}})", "branches in flight"),
          (f"sum by (queue) (coppice_queue_length{{{HOSTS}}})", "waiting: {{queue}}")], None),
        ("What fails", "Failed branches by reason, missed deadlines by step.", "timeseries", "ops", 6,
         [(f"sum by (reason) ({rate('coppice_branch_failures_total')}) > 0", "{{reason}}"),
          (f"sum by (step) ({rate('coppice_branch_deadline_misses_total')}) > 0", "deadline: {{step}}")], None),
        ("VMMs ended", "Stopped by the daemon, or died by themselves.", "timeseries", "ops", 6,
         [(f"sum by (reason) ({rate('coppice_sandbox_exits_total')})", "{{reason}}")], None),
        ("Copying", "Bytes that live copies write.", "timeseries", "Bps", 6,
         [(f"sum by (instance) ({rate('coppice_written_bytes_total')})", "{{instance}}")], None),
        ("Write faults", "Served; deferred because the disk is behind; and pages saved ahead of it.", "timeseries", "ops", 6,
         [(f"sum({rate('coppice_faults_total')})", "served"),
          (f"sum({rate('coppice_deferred_faults_total')})", "deferred"),
          (f"sum({rate('coppice_saved_ahead_pages_total')})", "saved ahead")], None),
        ("Service of a write fault", "Message read to page lifted.", "timeseries", "s", 6,
         quantiles("coppice_fault_service_seconds"), None),
        ("Bounce memory", "Holds saved pages until they are written.", "timeseries", "bytes", 6,
         [(f"sum by (instance) (coppice_bounce_bytes{{{HOSTS}}})", "{{instance}}")], None),
        ("Disk", "Free, of its size; reserved for snapshots in the making.", "timeseries", "bytes", 6,
         [(f"coppice_store_free_bytes{{{HOSTS}}}", "free"), (f"coppice_store_reserved_bytes{{{HOSTS}}}", "reserved"),
          (f"coppice_store_size_bytes{{{HOSTS}}}", "size")], None),
        ("Snapshots", "Ready ones.", "timeseries", "short", 6,
         [(f"coppice_snapshots{{{HOSTS}}}", "{{instance}}")], None),
        ("Requests", "Answered, by status.", "timeseries", "reqps", 6,
         [(f"sum by (status) ({rate('coppice_http_requests_total')})", "{{status}}")], None),
        ("Time to answer, p99", "By route; a branch takes as long as its copy.", "timeseries", "s", 6,
         quantiles("coppice_http_request_seconds", "route, method", "{{method}} {{route}} ")[1:], None),
        ("Memory of the daemon", "Without guest RAM.", "timeseries", "bytes", 8,
         [(f"coppice_memory_bytes{{{HOSTS}}}", "{{instance}}")], None),
        ("CPU of the daemon", "Without its VMMs; 1 is a core.", "timeseries", "short", 8,
         [(rate("process_cpu_seconds_total"), "{{instance}}")], None),
        ("Files of the daemon", "Open, of those that may be.", "timeseries", "percentunit", 8,
         [(f"process_open_fds{{{HOSTS}}} / process_max_fds{{{HOSTS}}}", "{{instance}}")], None),
    ]),
    ("Sandboxes and their guests", [
        ("Which are stuck", "Their resume is being retried.", "timeseries", "short", 6,
         [(f"coppice_sandbox_stuck{{{HOSTS}}}", "{{sandbox}}")], None),
        ("Time to start", "From the request to the guest running.", "timeseries", "s", 6,
         quantiles("coppice_sandbox_start_seconds"), None),
        ("Time of a program", "That was run in a guest, from the request to its end.", "timeseries", "s", 6,
         quantiles("coppice_exec_seconds"), None),
        ("Longest stall seen inside", "By journal guests, when they are asked for their journal.", "timeseries", "s", 6,
         quantiles("coppice_guest_longest_stall_seconds"), None),
    ]),
    ("Branches", [
        ("Steps, median", "Of all branches.", "timeseries", "s", 8,
         quantiles("coppice_branch_step_seconds", "step", "{{step}} ")[:1], None),
        ("Steps, p99", "Of all branches.", "timeseries", "s", 8,
         quantiles("coppice_branch_step_seconds", "step", "{{step}} ")[1:], None),
        ("Copy", "Resume to last page written.", "timeseries", "s", 8, quantiles("coppice_branch_copy_seconds"), None),
        ("Speed of a copy", "Bytes written per second of one branch's copying.", "timeseries", "Bps", 8,
         quantiles("coppice_copy_throughput_bytes_per_second"), None),
        ("Where pages come from", "Captured at a write fault; zero and hole cost no write.", "timeseries", "Bps", 8,
         [(f"sum by (source) ({rate('coppice_copied_bytes_total')})", "{{source}}")], None),
    ]),
]


def defaults_of(kind: str, unit: str, red_from) -> dict:
    defaults = {"unit": unit, "color": {"mode": "palette-classic"}}
    if kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
        if unit == "s":  # from microseconds to seconds
            defaults["custom"]["scaleDistribution"] = {"type": "log", "log": 10}
        else:
            defaults["min"] = 0
    if kind == "stat":
        steps = [{"color": "green", "value": None}] + ([{"color": "red", "value": red_from}] if red_from else [])
        defaults |= {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    return defaults


def options_of(kind: str, title: str) -> dict:
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    shown = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "orientation": "horizontal"}
    if kind == "stat":
        shown |= {"graphMode": "none", "textMode": "name" if title == "Version" else "auto"}
    return shown


def variable(name: str, label: str, query: str, several: bool) -> dict:
    current = {"selected": True, "text": ["All"], "value": ["$__all"]} if several else {}
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "refresh": 2, "sort": 1,
            "query": {"query": query, "refId": name}, "definition": query, "multi": several, "includeAll": several,
            "current": current}


def panels() -> list[dict]:
    all_panels = []
    y = 0
    for row, members in ROWS:
        all_panels.append({"id": len(all_panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": [],
                           "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        x, line = 0, 0  # where the next panel stands, and how high the present line is
        for title, description, kind, unit, width, queries, red_from in members:
            height = 4 if kind == "stat" else 8
            if x + width > 24:
                x, y = 0, y + line
            line = height
            targets = [{"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": DATASOURCE}
                       for place, (query, legend) in enumerate(queries)]
            all_panels.append({"id": len(all_panels) + 1, "type": kind, "title": title, "description": description,
                               "gridPos": {"x": x, "y": y, "w": width, "h": height}, "datasource": DATASOURCE,
                               "fieldConfig": {"defaults": defaults_of(kind, unit, red_from), "overrides": []},
                               "options": options_of(kind, title), "targets": targets})
            x += width
        y += line
    return all_panels


def dashboard() -> str:
    return json.dumps({
        "uid": "coppice", "title": "Coppice", "tags": ["coppice"], "schemaVersion": 37, "version": 1, "editable": True,
        "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "", "links": [],
        "annotations": {"list": []},
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1,
             "current": {}},
            variable("instance", "host", 'label_values(up{job="coppice"}, instance)', True)]},
        "panels": panels()}, indent=1) + "\n"


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1:] == []:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(dashboard())
        return 0
    if TARGET.exists() and TARGET.read_text() == dashboard():
        return 0
    print(f"{TARGET} is not what tools/make_dashboard.py writes: run it, and see what changed", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
