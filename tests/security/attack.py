#!/usr/bin/env python3
"""Attacks a running coppiced, and tells what holds: a line for each attack, which begins with ok, HOLE or skip. Exits with 1 if
there is a hole.

Don't run it against a daemon whose sandboxes matter: behind a hole they would be deleted. It takes two minutes. Examples:
  attack.py --server unix:/run/coppice/coppiced.sock
  attack.py --server https://127.0.0.1:8889 --write-token-file ops --read-token-file watch --cert me.crt --key me.key \\
            --audit-log /var/log/coppice/audit.log --pid $(pidof coppiced)
"""
import argparse
import shutil
import sys
import time

from attacks import access, aftermath, content, exhaustion, framing, transport
from attacks.victim import Hole, Skipped, Victim

ATTACKS = [attack for module in (access, framing, content, transport, exhaustion, aftermath) for attack in module.ATTACKS]


def sentence(attack) -> str:
    return attack.__name__.replace("_", " ")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="http://IP:PORT, https://IP:PORT or unix:/PATH")
    parser.add_argument("--write-token-file",
                        help="holds a token with the role write; without: the daemon is said to have no tokens")
    parser.add_argument("--read-token-file", help="holds one with the role read")
    parser.add_argument("--cert", help="certificate of a client that is served; without: none is said to be needed")
    parser.add_argument("--key", help="key of --cert")
    parser.add_argument("--ca", help="the CA of --cert, to make a certificate that has expired")
    parser.add_argument("--ca-key", help="its key")
    parser.add_argument("--audit-log", help="the daemon's, to compare it with what was asked")
    parser.add_argument("--allowed-folder", help="an --allow-path folder of the daemon's that holds a file, to put links into")
    parser.add_argument("--token-file", help="the daemon's, to add a token and revoke it")
    parser.add_argument("--pid", type=int, help="the daemon's, to look at its memory and to send it SIGHUP")
    parser.add_argument("--connection-limit", type=int, default=1000)
    for name, default in (("header", 60), ("body", 15), ("write", 15), ("handshake", 10)):
        parser.add_argument(f"--{name}-timeout", type=float, default=default, help="seconds; default: %(default)s")
    parser.add_argument("--patience", type=float, default=30, help="seconds for an answer of a busy host; default: %(default)s")
    parser.add_argument("--only", action="append", metavar="WORDS", help="only attacks whose line holds these words; repeatable")
    return parser.parse_args()


def main() -> int:
    options = parse()
    wanted = [each for each in ATTACKS if not options.only or any(words in sentence(each) for words in options.only)]
    try:
        victim = Victim(options)
    except Hole as failure:
        print(f"attack.py: {failure}", file=sys.stderr)
        return 2
    holes = 0
    for attack in wanted:
        began = time.monotonic()
        try:
            attack(victim)
            verdict, why = "ok  ", ""
        except Skipped as reason:
            verdict, why = "skip", f": {reason}"
        except Exception as hole:  # what an attack did not expect is none of the things that hold
            verdict, why = "HOLE", f": {hole}" if isinstance(hole, Hole) else f": {hole!r}"
            holes += 1
        told = f"{verdict} {sentence(attack)} ({time.monotonic() - began:.1f} s){why}"
        print(told.replace("\n", " ")[:1000], flush=True)
    shutil.rmtree(victim.scratch, ignore_errors=True)
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
