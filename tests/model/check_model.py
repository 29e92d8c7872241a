#!/usr/bin/env python3
"""Checks the page protocol's model with spin: check_model.py MODEL [BUG]

Without BUG every state must be free of errors; with one (a -D of the model) spin must find it. Exit code 0 if that holds.
"""
import os
import re
import subprocess
import sys
import tempfile


def main() -> int:
    model = os.path.abspath(sys.argv[1])
    bug = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["spin", *([f"-D{bug}"] if bug else []), "-a", model], cwd=folder, check=True)
        subprocess.run(["gcc", "-O2", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=6000", "-w", "-o", "pan", "pan.c"], cwd=folder, check=True)
        output = subprocess.run(["./pan", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True).stdout
    print(output)
    errors = re.search(r"errors: (\d+)", output)
    if errors is None or "max search depth too small" in output or "search not completed" in output.lower() and bug is None:
        print("spin did not search all states", file=sys.stderr)
        return 1
    found = int(errors.group(1)) > 0
    if found != (bug is not None):
        print(f"spin {'did not find the bug ' + bug if bug else 'found an error in the protocol'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
