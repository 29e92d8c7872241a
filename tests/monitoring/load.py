"""A fleet at work, for a daemon that is watched: branches in each mode, children, deletions, failures, a VMM's death."""
import contextlib
import json
import os
import pathlib
import signal
import threading
import urllib.error
import urllib.request

from guest_agent import NAMESPACES_WORK, agent_in  # of tests/support, where whoever imports this has looked

BUILD = pathlib.Path(os.environ["COPPICE_BUILD"])  # set by CMake
MODES = ["live", "live", "full", "live", "live", "diff"]
LEFT_OVER = "left-over"  # a tag that the daemon must have been started with as one that can't be used
# Of each VM, the fifth snapshot comes too late, and the resume after the eighth fails (the first PATCH starts it), again and
# again for some 2 s, so that a scrape sees it stuck.
FAULTS = ["PUT /snapshot/create#5:delay=400", *(f"PATCH /vm#{call}:fail" for call in range(17, 25))]


def misbehaving_vmm(folder: pathlib.Path) -> pathlib.Path:
    """A program that is coppice-vmm with FAULTS."""
    script = folder / "vmm-with-faults"
    faults = " ".join(f"--fault '{fault}'" for fault in FAULTS)
    script.write_text(f'#!/bin/sh\nexec {BUILD / "bin" / "coppice-vmm"} {faults} "$@"\n')
    script.chmod(0o755)
    return script


class Load:
    """Runs on a thread of its own from start() until stop(), against the daemon at `url`."""

    def __init__(self, url: str, kernel: pathlib.Path, parents: int = 3, memory_mib: int = 64):
        self.url = url
        self.parents = []  # ids
        self.number_of_parents = parents
        self.with_agent = None  # a sandbox that programs can be run in, where the host allows it
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.unexpected = []  # answers that nobody asked for
        self.base = {"tag": "base", "kernel": str(kernel), "memory_mib": memory_mib, "boot_time_ms": 200,
                     "boot_args": "journal.rest_us=100"}  # guests that leave the processor to others

    def start(self) -> None:
        self.call("POST", "/v1/snapshots", self.base)
        self.thread.start()

    def stop(self) -> None:
        self.enough.set()
        self.thread.join()

    def call(self, method: str, path: str, body=None, expected=(200, 201, 202, 204)):
        """The answer's JSON, or None if it was no success. What is not `expected` is remembered."""
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as failure:
            text = failure.read().decode()
            if failure.code not in expected:
                self.unexpected.append(f"{method} {path}: {failure.code} {text}")
            return None

    def run(self) -> None:
        with contextlib.ExitStack() as agents:
            if NAMESPACES_WORK:
                self.with_agent = self.call("POST", "/v1/sandboxes", {"snapshot_tag": "base", "per_child_netns": True})[0]
                agents.enter_context(agent_in(self.with_agent["netns"], "agent"))
            self.branch_until_enough()

    def branch_until_enough(self) -> None:
        victim = self.call("POST", "/v1/sandboxes", {"snapshot_tag": "base", "n": 1})[0]
        os.kill(victim["pid"], signal.SIGKILL)
        made = self.call("POST", "/v1/sandboxes", {"snapshot_tag": "base", "n": self.number_of_parents})
        self.parents = [each["id"] for each in made]
        turn = 0
        while not self.enough.is_set():
            for parent in self.parents:
                self.round(parent, turn)
                turn += 1

    def round(self, parent: str, turn: int) -> None:
        """One branch with its child; the branch before it is taken away."""
        tag = f"b{turn}"
        ready = self.call("POST", f"/v1/sandboxes/{parent}/branch", {"tag": tag, "mode": MODES[turn % len(MODES)]},
                          expected=(409, 503))  # 409: stuck; 503: a deadline was missed
        self.call("GET", f"/v1/sandboxes/{parent}/journal?reset=true")
        if self.with_agent:
            self.call("POST", f"/v1/sandboxes/{self.with_agent['id']}/exec", {"args": ["true"]})
        if ready is None:
            return
        if turn % 10 == 0:
            for taken in (tag, LEFT_OVER):
                self.call("POST", f"/v1/sandboxes/{parent}/branch", {"tag": taken}, expected=(409,))
        for child in self.call("POST", "/v1/sandboxes", {"snapshot_tag": tag, "n": 1}) or []:
            self.call("DELETE", f"/v1/sandboxes/{child['id']}")
        self.call("DELETE", f"/v1/snapshots/{tag}")
