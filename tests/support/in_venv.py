#!/usr/bin/env python3
"""Runs a script in a virtual environment with packages from PyPI. Exits with 77 (ctest: skipped) if they can't be had.

usage: in_venv.py VENV_FOLDER REQUIREMENT[,REQUIREMENT...] SCRIPT [ARGUMENTS...]

The environment is made once and kept; it is made anew if the requirements change.
"""
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

SKIPPED = 77


def make(folder: pathlib.Path, requirements: list[str]) -> bool:
    """Makes the environment unless it is there. False if the packages can't be had."""
    marker = folder / "requirements"
    wanted = "\n".join([sys.executable, *requirements])
    if marker.exists() and marker.read_text() == wanted:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    if subprocess.run([*pip, "install", "--quiet", "--only-binary", ":all:", *requirements]).returncode != 0:
        return False
    marker.write_text(wanted)
    return True


def main() -> int:
    folder, requirements, *command = sys.argv[1:]
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not make(folder, requirements.split(",")):
            print(f"SKIPPED: {requirements} can't be installed from PyPI (see pip's message above)")
            return SKIPPED
    python = folder / "bin" / "python"
    os.execv(python, [python, *command])


if __name__ == "__main__":
    sys.exit(main())
