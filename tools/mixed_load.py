#!/usr/bin/env python3
"""Mixed load on a running coppiced, by forkd's own SDK: creates, branches, children, deletes, lists and bad requests at a steady rate.

usage: mixed_load.py --kernel JOURNAL [--url URL] [--seconds N] [--rate PER_SECOND] [--json FILE]

Needs the PyPI package forkd==0.5.3. Where the daemon wants a token: FORKD_TOKEN, of the role write; its CA: SSL_CERT_FILE. What is there
already stays; sandboxes and snapshots of its own (load-...) are deleted at the end. Ends with 1 if a request failed that should not have, if the 99th percentile of GETs is over
10 ms, or if the daemon's memory grew by more than 4 MiB in the second half. JOURNAL is read by the daemon.
"""
import argparse
import collections
import json
import os
import pathlib
import queue
import random
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from forkd import Controller, ControllerError

MOST_SANDBOXES = 24
MOST_SNAPSHOTS = 48
WORKERS = 16
BASE = "load-base"
GET_TARGET_MS = 10
GROWTH_TARGET_BYTES = 4 * 2**20


class Load:
    def __init__(self, url: str):
        self.sdk = Controller(url, timeout=60)
        self.url = url
        self.lock = threading.Lock()
        self.sandboxes: list[str] = []  # those that nobody is about to delete
        self.snapshots: list[str] = []
        self.number = 0
        self.took_ms: dict[str, list[float]] = collections.defaultdict(list)
        self.failures: collections.Counter = collections.Counter()

    def take(self, pool: list[str]) -> str | None:
        with self.lock:
            return pool.pop(random.randrange(len(pool))) if pool else None

    def peek(self, pool: list[str]) -> str | None:
        with self.lock:
            return random.choice(pool) if pool else None

    # Each returns the kind of request it made, for the table.

    def get(self) -> str:
        path = random.choice(["/v1/sandboxes", "/v1/snapshots", "/healthz", "/version", "one"])
        if path == "one":
            path = f"/v1/snapshots/{BASE}/info"
        self.sdk._request("GET", path)
        return "GET"

    def create(self) -> str:
        made = self.sdk.spawn_sandboxes(BASE, n=1)
        with self.lock:
            self.sandboxes += [each["id"] for each in made]
        return "create"

    def branch(self) -> str:
        parent = self.take(self.sandboxes)  # taken, so that nobody deletes it meanwhile
        if parent is None:
            return self.create()
        with self.lock:
            self.number += 1
            tag = f"load-{self.number}"
        try:
            self.sdk.branch_sandbox(parent, tag=tag, mode="live")
        finally:
            with self.lock:
                self.sandboxes.append(parent)
        with self.lock:
            self.snapshots.append(tag)
        return "branch"

    def child(self) -> str:
        tag = self.take(self.snapshots)
        if tag is None:
            return self.branch()
        made = self.sdk.spawn_sandboxes(tag, n=1)
        self.sdk.kill_sandbox(made[0]["id"])
        self.sdk.delete_snapshot(tag)
        return "child, its end, its snapshot's end"

    def delete(self) -> str:
        sandbox = self.take(self.sandboxes)
        if sandbox is None:
            return self.create()
        self.sdk.kill_sandbox(sandbox)
        return "delete"

    def bad(self) -> str:
        wrong = random.choice([lambda: self.sdk.get_sandbox("sb-none"), lambda: self.sdk.spawn_sandboxes("none"),
                               lambda: self.sdk.spawn_sandboxes(BASE, n=0), lambda: self.sdk.delete_snapshot("none"),
                               lambda: self.sdk._request("POST", "/v1/snapshots", {"tag": "../x"}),
                               lambda: self.sdk._request("GET", "/v1/no-such-route")])
        try:
            wrong()
        except ControllerError as refused:
            if 400 <= refused.status < 500:
                return "bad request"
            raise
        raise AssertionError("a bad request was not refused")

    def choose(self):
        with self.lock:
            sandboxes, snapshots = len(self.sandboxes), len(self.snapshots)
        if snapshots >= MOST_SNAPSHOTS:
            return self.child
        if sandboxes >= MOST_SANDBOXES:
            return self.delete
        return random.choices([self.get, self.create, self.branch, self.child, self.delete, self.bad],
                              [60, 6, 8, 8, 6, 12])[0]

    def work(self, due: queue.Queue):
        while (action := due.get()) is not None:
            began = time.perf_counter()
            try:
                kind = action()
            except Exception as failure:  # whatever it is, it is counted
                with self.lock:
                    self.failures[str(failure)[:200]] += 1
                continue
            with self.lock:
                self.took_ms[kind].append((time.perf_counter() - began) * 1000)

    def daemon_bytes(self) -> int:
        token = {"Authorization": f"Bearer {self.sdk.token}"} if self.sdk.token else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + "/metrics", headers=token)) as answer:
            text = answer.read().decode()
        return int(sum(float(value) for value in re.findall(r'^coppice_memory_bytes (\S+)', text, re.M)))

    def run(self, seconds: float, rate: float) -> list[int]:
        due: queue.Queue = queue.Queue()
        workers = [threading.Thread(target=self.work, args=(due,)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        began = time.monotonic()
        memory = []
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            due.put(self.choose())
            if number % int(rate * 5) == 0:
                memory.append(self.daemon_bytes())
                print(f"\r{number / rate:.0f} of {seconds:.0f} s, {sum(self.failures.values())} failed, "
                      f"{len(self.sandboxes)} sandboxes, {len(self.snapshots)} snapshots   ", end="", file=sys.stderr)
        for _ in workers:
            due.put(None)
        for worker in workers:
            worker.join()
        print(file=sys.stderr)
        return memory

    def clean_up(self):
        """Of an earlier run that was ended, too."""
        for sandbox in self.sdk.list_sandboxes():
            if sandbox["snapshot_tag"].startswith("load-"):
                self.sdk.kill_sandbox(sandbox["id"])
        for snapshot in self.sdk.list_snapshots():
            if snapshot["tag"].startswith("load-"):
                self.sdk.delete_snapshot(snapshot["tag"])


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def describe_environment() -> dict:
    """Of this machine, which the daemon is taken to run on, as coppice-bench tells it."""
    with open("/proc/cpuinfo") as file:
        cpu = re.search(r"^model name\s*: (.*)$", file.read(), re.M)
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True,
                            cwd=pathlib.Path(__file__).parent).stdout.strip()
    system = os.uname()
    return {"cpu": cpu.group(1) if cpu else None, "cores": os.cpu_count(), "kernel": f"{system.sysname} {system.release}",
            "ram_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "load_average": os.getloadavg()[0],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit or None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8889")
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--json")
    options = parser.parse_args()
    environment = describe_environment()
    load = Load(options.url)
    load.clean_up()
    load.sdk._request("POST", "/v1/snapshots", {
        "tag": BASE, "kernel": options.kernel, "memory_mib": 16, "boot_args": "journal.pages=512 journal.rest_us=20000"})
    memory = load.run(options.seconds, options.rate)
    growth = int(statistics.median(memory[-5:]) - statistics.median(memory[len(memory) // 2:][:5]))
    load.clean_up()
    kinds = {kind: {"count": len(values), "median_ms": round(statistics.median(values), 2),
                    "p99_ms": round(percentile(values, 0.99), 2), "worst_ms": round(max(values), 2)}
             for kind, values in sorted(load.took_ms.items())}
    verdict = {
        "failed requests: none": not load.failures,
        f"99th percentile of GETs: under {GET_TARGET_MS} ms": kinds["GET"]["p99_ms"] < GET_TARGET_MS,
        "the daemon's memory: flat in the second half": growth <= GROWTH_TARGET_BYTES,
    }
    outcome = {"environment": environment, "url": options.url, "seconds": options.seconds,
               "rate_per_second": options.rate, "requests": kinds, "failures": dict(load.failures),
               "daemon_anonymous_bytes": memory, "growth_bytes": growth, "verdict": verdict}
    print(f"{'request':<36}{'count':>8}{'median ms':>12}{'p99 ms':>10}{'worst ms':>10}")
    for kind, figures in kinds.items():
        print(f"{kind:<36}{figures['count']:>8}{figures['median_ms']:>12}{figures['p99_ms']:>10}{figures['worst_ms']:>10}")
    for failure, count in load.failures.most_common():
        print(f"FAILED {count} times: {failure}")
    print(f"daemon's memory: {memory[0] / 2**20:.1f} to {memory[-1] / 2**20:.1f} MiB, {growth / 2**20:+.1f} in the second half")
    for what, held in verdict.items():
        print(f"{'met   ' if held else 'MISSED'} {what}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(outcome, file, indent=1)
    return 0 if all(verdict.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
