"""What is left behind after all the others: it must be what was there before, and a line of the audit log for each request."""
import contextlib
import json
import os
import pathlib
import signal
import time

from . import content, exhaustion, framing
from .victim import BODY_SECRET, Hole, Victim

MOST_GROWTH = 48 * 2**20  # bytes of memory, of a second round: what malloc keeps it has mostly kept after the first
MOST_KEPT = 256 * 2**20  # of all together


def a_token_that_was_revoked_is_refused_on_open_connections_too(victim: Victim) -> None:
    """Adds a token to the daemon's file, and takes it out again."""
    victim.need("token-file", "pid")
    file = pathlib.Path(victim.options.token_file)
    honest = file.read_text()
    token = "attacker-" + os.urandom(16).hex()

    def becomes(status: int, connection) -> bool:
        until = time.monotonic() + victim.options.patience
        while time.monotonic() < until:
            connection.send(victim.whole("GET", "/v1/snapshots", token))
            if (answer := connection.answer()) is not None and answer.status == status:
                return True
            time.sleep(0.05)
        return False

    with victim.connect() as kept:
        try:
            file.write_text(f"{honest}\nattacker write {token}\n")
            os.kill(victim.options.pid, signal.SIGHUP)
            if not becomes(200, kept):
                raise Hole("a new token is not read at SIGHUP: the attack is weaker than it seems")
        finally:
            file.write_text(honest)
            os.kill(victim.options.pid, signal.SIGHUP)
        if not becomes(401, kept):
            raise Hole("a revoked token is served on an open connection")
    if victim.ask("DELETE", "/v1/snapshots/none", token).status != 401:
        raise Hole("a revoked token is served")
    victim.expect_served()


def nothing_was_changed(victim: Victim) -> None:
    for what, before, after in zip(("snapshots", "sandboxes"), victim.before, victim.state(), strict=True):
        if before != after:
            raise Hole(f"the {what} were {before.decode()}, and are {after.decode()}")
    if victim.options.pid and not pathlib.Path(f"/proc/{victim.options.pid}").exists():
        raise Hole("the daemon is gone")


def memory_and_descriptors_are_what_they_were(victim: Victim) -> None:
    victim.need("pid")
    until = time.monotonic() + victim.options.patience
    while (fds := victim.fds()) > victim.fds_before and time.monotonic() < until:
        time.sleep(0.2)
    if fds > victim.fds_before:
        raise Hole(f"{victim.fds_before} descriptors were open, {fds} are")
    first = victim.memory()
    for again in (framing.what_is_too_large_is_refused_before_it_is_read, content.bad_json_is_refused_and_harms_nothing,
                  exhaustion.a_flood_of_connections_is_bounded_and_goes_by):
        with contextlib.suppress(Hole):  # that was told the first time
            again(victim)
    second = victim.memory()
    if second - first > MOST_GROWTH or second - victim.memory_before > MOST_KEPT:
        raise Hole(f"memory grew from {victim.memory_before // 2**20} to {first // 2**20} MiB, and in a second round to {second // 2**20}")


def new_lines(victim: Victim) -> str:
    with open(victim.options.audit_log, encoding="utf-8") as file:
        file.seek(victim.audit_begin)
        return file.read()


def each_request_is_in_the_audit_log_once_and_no_secret_is(victim: Victim) -> None:
    victim.need("audit-log")
    until = time.monotonic() + victim.options.patience
    while (wrong := what_is_wrong_with(victim, new_lines(victim))) and time.monotonic() < until:
        time.sleep(0.5)  # lines may come after their answers
    if wrong:
        raise Hole(wrong)


def what_is_wrong_with(victim: Victim, text: str) -> str:
    """Compares the lines with the answers that were read; empty: nothing."""
    for name, secret in (("writer's token", victim.writer), ("reader's token", victim.reader), ("secret of a body", BODY_SECRET)):
        if secret and (at := text.find(secret)) >= 0:
            return f"the {name} is in the audit log: {text[text.rfind(chr(10), 0, at) + 1:at + 100]}"
    recorded, by_nobody = {}, []
    for line in text.splitlines():
        entry = json.loads(line)
        if entry["event"] != "request":  # the daemon's start, a refused connection, ...
            continue
        recorded.setdefault(entry["request_id"], []).append(entry["status"])
        if entry["request_id"] not in victim.answered and victim.peers.get(entry["peer"]) is False and not victim.is_unix:
            by_nobody.append(line)
    wrong = [f"{name}: {statuses} answered, {recorded.get(name, [])} recorded" for name, statuses in victim.answered.items()
             if recorded.get(name) != statuses]
    if wrong:
        return f"{len(wrong)} of {len(victim.answered)} requests: {wrong[0]}"
    return f"{len(by_nobody)} lines of requests that nobody made: {by_nobody[0]}" if by_nobody else ""


ATTACKS = [a_token_that_was_revoked_is_refused_on_open_connections_too, nothing_was_changed,
           memory_and_descriptors_are_what_they_were,
           each_request_is_in_the_audit_log_once_and_no_secret_is]
