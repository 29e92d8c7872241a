"""A coppiced of a test's own: the real program, on a temporary root and a free port of loopback."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

BUILD = pathlib.Path(os.environ["COPPICE_BUILD"])  # set by CMake
JOURNAL = BUILD / "vmm" / "guest" / "journal.elf"


class Coppiced:
    """Started by the constructor; `url` is where it listens. stop() ends it and removes its root."""

    def __init__(self, *options: str):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="coppiced-", dir="/var/tmp"))  # a disk, as users have it
        self.log = (self.root / "log").open("w+")
        command = [BUILD / "cli" / "coppiced", "--root", self.root / "root", "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = ""
        self.reader = None
        for line in self.process.stderr:
            self.log.write(line)
            if found := re.search(r"listening on ([^\s\"]+)", line):
                self.url = found.group(1)
                break
        if not self.url:
            self.stop()
            raise RuntimeError(f"coppiced did not start: {self.output}")
        self.reader = threading.Thread(target=self.log.writelines, args=(self.process.stderr,))  # a full pipe blocks it
        self.reader.start()

    @property
    def output(self) -> str:
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> str:
        """Returns everything that it logged."""
        self.process.terminate()
        self.process.wait(timeout=30)
        if self.reader:
            self.reader.join()
        text = self.output
        self.process.stderr.close()
        self.log.close()
        shutil.rmtree(self.root, ignore_errors=True)
        return text
