#!/usr/bin/env python3
"""Checks that folders include only what docs/design.md's layout allows: no cycles, no siblings."""
import pathlib
import re
import sys

BELOW = {"base", "vmm", "copy_engine", "store", "metrics", "journal_guest"}
ALLOWED = {
    "base": {"base"},
    "vmm": {"base", "vmm"},
    "copy_engine": {"base", "copy_engine"},
    "store": {"base", "store"},
    "metrics": {"base", "metrics"},
    "journal_guest": {"base", "journal_guest"},
    "reference_vmm": {"base", "journal_guest", "reference_vmm"},
    "control_plane": {"base", "control_plane"},
    "actors": BELOW | {"control_plane", "actors"},
    "api": {"base", "control_plane", "api"},
    "client": {"base", "client"},
    "options": {"base", "options"},
    "daemon": BELOW | {"control_plane", "actors", "api", "options", "daemon"},
    "doctor": BELOW | {"client", "options", "reference_vmm", "doctor"},
    "cli": {"base", "client", "options", "doctor", "cli"},
    "bench": BELOW | {"control_plane", "actors", "client", "options", "cli", "bench"},
}
# Only these may know CAF.
CAF_FOLDERS = {"actors", "daemon"}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<(caf/[^>]+)>)', re.MULTILINE)


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    problems = []
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*.[ch]pp")):
            name = path.relative_to(root).as_posix()
            for match in INCLUDE.finditer(path.read_text()):
                included, caf = match.groups()
                if caf:
                    if folder not in CAF_FOLDERS:
                        problems.append(f"{name}: includes <{caf}>; CAF stays in {', '.join(sorted(CAF_FOLDERS))}")
                    continue
                target = included.split("/")[0]
                if "/" not in included and not included.endswith(".pb.h"):
                    problems.append(f'{name}: "{included}": write includes from the repository\'s root')
                elif "/" in included and target not in allowed:
                    problems.append(f'{name}: must not include "{included}"; {folder}/ may include {", ".join(sorted(allowed))}')
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
