"""What the description does not tell schemathesis: what there is on the host of a test, and how much it can carry."""
import itertools
import re

import schemathesis
from coppiced import JOURNAL

PATH = re.compile(r"/[^\0]*")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"[!-~]{1,255}")
BOOT_ARGS = re.compile(r"[^\0]*")
# name: a legal value (up to the second, and a multiple of the third) that is larger than the first is lowered to it
MOST = {"n": (1, 1000, 1), "memory_mib": (16, 2**20, 1), "memory_bytes": (2**24, 2**40, 2**20),
        "boot_time_ms": (50, 60_000, 1), "boot_wait_secs": (0, 60, 1), "vcpus": (2, 32, 2)}
serial = itertools.count()


def is_legal(value, pattern):
    return isinstance(value, str) and pattern.fullmatch(value)


def fit(body):
    """Changes legal values that would fail for what a schema can't tell, or take long. Illegal ones stay what they are."""
    if is_legal(body.get("tag"), TAG):
        body["tag"] = f"made-{next(serial)}"
    if is_legal(body.get("kernel"), PATH):
        body["kernel"] = str(JOURNAL)
    if is_legal(body.get("initrd"), PATH):
        body["initrd"] = str(JOURNAL)
    if is_legal(body.get("parent_tag"), TAG):
        body["parent_tag"] = "base"
    if "kernel" in body:
        if is_legal(body.get("boot_args") or "", BOOT_ARGS):
            body["boot_args"] = "journal.pages=512 journal.rest_us=10000"
        if body.get("boot_time_ms") is None and body.get("boot_wait_secs") is None:
            body["boot_time_ms"] = 50
        if body.get("memory_mib") is None and body.get("memory_bytes") is None:
            body["memory_mib"] = 16
    for name, (most, legal, step) in MOST.items():
        value = body.get(name)
        if isinstance(value, (int, float)) and most < value <= legal and value % step == 0:
            body[name] = most


@schemathesis.hook
def before_call(context, case, kwargs):
    if is_legal((case.headers or {}).get("Idempotency-Key"), KEY):
        case.headers["Idempotency-Key"] = f"key-{next(serial)}"
    if isinstance(case.body, dict):
        fit(case.body)
