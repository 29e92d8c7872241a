"""A coppiced of a test's own: the real program, on a temporary root and a free port of loopback."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

BUILD = pathlib.Path(os.environ["COPPICE_BUILD"])  # set by CMake
JOURNAL = BUILD / "share" / "coppice" / "journal.elf"


class Coppiced:
    """Started by the constructor; `url` is where it listens. stop() ends it and removes its root.

    `left_over`: a tag whose folder is there already, without a manifest: no snapshot can have it.
    """

    def __init__(self, *options: str, left_over: str = ""):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="coppiced-", dir="/var/tmp"))  # a disk, as users have it
        if left_over:
            (self.root / "root" / "snapshots" / left_over).mkdir(parents=True)
        address = [] if "--listen" in options else ["--listen", "127.0.0.1:0"]
        command = [BUILD / "bin" / "coppiced", "--root", self.root / "root", *address, *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = ""
        self.lines: list[str] = []
        self.started = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)  # always: it must not wait for a full pipe
        self.reader.start()
        self.started.wait()
        if not self.url:
            raise RuntimeError(f"coppiced did not start: {self.stop()}")

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"listening on ([^\s\"]+)", line):
                self.url = found.group(1)
                self.started.set()
        self.started.set()  # it ended

    def stop(self) -> str:
        """Returns everything that it logged."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self.reader.join()
        self.process.stderr.close()
        shutil.rmtree(self.root, ignore_errors=True)
        return "".join(self.lines)
