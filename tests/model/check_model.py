#!/usr/bin/env python3
"""Checks the page protocol's model with spin: check_model.py MODEL [-D...] [--finds ASSERTION] [--ends]

Every state must be free of errors, and all states must be searched. --finds: a bug is put in (a -D of the model), and spin
must find that it violates the named assertion; any other error does not count. --ends: every run must come to its end (no
cycle of states; only of a model that is BOUNDED). Exit code 0 if that holds.
"""
import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile

MEMORY_MIB = 6000


def search(model: str, defines: list[str], ends: bool, is_short: bool) -> str:
    """What spin's verifier says. is_short: it takes longer to compile than to run."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["spin", *defines, "-a", model], cwd=folder, check=True)
        kind = "-DNP" if ends else "-DSAFETY"
        options = ["-O0" if is_short else "-O2", kind, "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", "-w"]
        subprocess.run(["gcc", *options, "-o", "pan", "pan.c"], cwd=folder, check=True)
        command = ["./pan", "-m3000000", *(["-l"] if ends else [])]
        return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True).stdout


def what_is_wrong(output: str, expected: str | None) -> str | None:
    found = re.search(r"^pan:\d+: (.*)$", output, re.MULTILINE)
    if expected:
        violated = re.search(r"assertion violated \(?(\w+)", found.group(1)) if found else None
        if violated is None or violated.group(1) != expected:
            return f"the bug does not show by {expected}, but by: {found.group(1) if found else 'nothing'}"
        return None
    if found:
        return f"the protocol is wrong: {found.group(1)}"
    errors = re.search(r"errors: (\d+)", output)
    if errors is None or "max search depth too small" in output or "search not completed" in output.lower():
        return "spin did not search all states"
    return None if int(errors.group(1)) == 0 else "spin found an error"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=os.path.abspath)
    parser.add_argument("-D", dest="defines", action="append", default=[])
    parser.add_argument("--finds", metavar="ASSERTION")
    parser.add_argument("--ends", action="store_true")
    options = parser.parse_args()
    output = search(options.model, [f"-D{each}" for each in options.defines], options.ends, bool(options.finds))
    print(output)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"CPU time of spin, gcc and pan: {used.ru_utime + used.ru_stime:.1f} s")
    wrong = what_is_wrong(output, options.finds)
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
