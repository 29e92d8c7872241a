"""Paths that leave their folders, names that leave theirs, and bodies that are no JSON or too much of it."""
import json
import pathlib

from .victim import Hole, Victim

OUTSIDE = "is no file below the folders"


def boot(victim: Victim, kernel, rootfs=None, tag="attack") -> tuple[int, str]:
    """Status and error of the answer to a snapshot of that kernel."""
    body = {"tag": tag, "kernel": kernel, "memory_mib": 16, "boot_time_ms": 0} | ({"rootfs": rootfs} if rootfs else {})
    answer = victim.ask("POST", "/v1/snapshots", victim.writer, body=json.dumps(body).encode())
    if answer.status < 300:
        raise Hole(f"kernel {str(kernel)[:80]!r}, rootfs {str(rootfs)[:80]!r}: a snapshot was made")
    return answer.status, json.loads(answer.body)["error"]


def no_path_leaves_its_folder(victim: Victim) -> None:
    victim.need("allowed-folder")
    folder = pathlib.Path(victim.options.allowed_folder).resolve()
    links = {folder / "attack-link": "/etc/passwd", folder / "attack-up": "/", folder / "attack-loop": folder / "attack-loop",
             folder / "attack-fd": "/proc/self/fd/0"}
    try:
        for link, target in links.items():
            link.symlink_to(target)
    except OSError as failure:
        raise Hole(f"--allowed-folder must be writable for the attack: {failure}") from None
    up = "/.." * 30
    escapes = ["/etc/passwd", f"{folder}{up}/etc/passwd", f"{folder}/./../{folder.name}/..{up}/etc/passwd",
               f"{folder}//..{up}//etc//passwd",
               *map(str, links), f"{folder}/attack-up/etc/passwd", f"{folder}-others/kernel", str(folder.parent), "/", "/dev/kvm",
               "/dev/zero",
               "/proc/self/mem", "/proc/self/exe", "/proc/self/root/etc/passwd", f"/proc/self/root{folder}/attack-link",
               f"/proc/self/cwd{up}/etc/passwd",
               *(f"/proc/self/fd/{number}" for number in range(8)), "/proc/1/root/etc/passwd", "/dev/fd/0", "/dev/stdin",
               f"{folder}/%2e%2e/%2e%2e/etc/passwd", f"{folder}\\..\\..\\etc\\passwd", f"{folder}/..;/etc/passwd", "/"
               + "x" * 5000, "/x" * 4000,
               f"{folder}/" + "../" * 3000 + "etc/passwd", "/etc/passwd ", " /etc/passwd", "/etc/passwd\n"]
    illegal = ["", "etc/passwd", "../etc/passwd", "~/x", "file:///etc/passwd", f"{folder}\0/../../etc/passwd", "/etc/passwd\0",
               "\0", 7, None, ["/etc/passwd"],
               {"path": "/etc/passwd"}, True]
    try:
        inside = next(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
        for escape in escapes:
            for where, (status, told) in (("kernel", boot(victim, escape)), ("rootfs", boot(victim, str(inside), escape))):
                if escape[0] == "/" and (status != 400 or OUTSIDE not in told) or status != 400:
                    raise Hole(f"{where} {escape[:80]!r}: {status} {told[:200]}")
        for wrong in illegal:
            if (got := boot(victim, wrong))[0] != 400:
                raise Hole(f"kernel {wrong!r}: {got}")
        there, absent = boot(victim, "/etc/passwd")[1], boot(victim, "/etc/absent")[1]
        if there.replace("/etc/passwd", "") != absent.replace("/etc/absent", ""):
            raise Hole(f"whether a file exists is told: {there!r}, {absent!r}")
    finally:
        for link in links:
            link.unlink(missing_ok=True)


def no_name_leaves_its_folder(victim: Victim) -> None:
    names = ["..", ".", "...", "%2e%2e", "..%2f..%2fetc", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%252e%252e%252f", "..%5c..", "a%00",
             "%00", "a%0a", "a%0d%0aX:y",
             "%2fetc%2fpasswd", ".hidden", "-rf", "a%20b", "%ff%fe", "%c0%ae%c0%ae", "a*", "%7e", "a" * 65, "a" * 9000, "staging",
             "a;b", "a%2fb"]
    for name in names:
        for method, path in (("GET", f"/v1/snapshots/{name}/info"), ("POST", f"/v1/snapshots/{name}/verify"),
                             ("DELETE", f"/v1/snapshots/{name}"),
                             ("DELETE", f"/v1/snapshots/{name}?cascade=true"), ("GET", f"/v1/sandboxes/{name}"),
                             ("DELETE", f"/v1/sandboxes/{name}"),
                             ("POST", f"/v1/sandboxes/{name}/branch"), ("POST", f"/v1/sandboxes/{name}/exec")):
            body = None if method != "POST" else b'{"args":["x"]}' if path.endswith("exec") else b""
            if (got := victim.ask(method, path, victim.writer, body=body)).status not in (400, 404):
                raise Hole(f"{method} {path[:80]}: {got.status} {got.body[:200]}")
    for tag in ["..", "../x", "/etc/x", "a/b", ".x", "a\0", "", "a" * 65, "a\n", "\u202ea", 7, ["a"], "\ud800"]:
        for path, body in (("/v1/snapshots", {"tag": tag, "kernel": "/x"}), ("/v1/sandboxes", {"snapshot_tag": tag}),
                           ("/v1/sandboxes/none/branch", {"tag": tag})):
            if (got := victim.ask("POST", path, victim.writer, body=json.dumps(body).encode())).status not in (400, 404):
                raise Hole(f"tag {tag!r} to {path}: {got.status} {got.body[:200]}")
    for path in ("/v1/snapshots/../../etc/passwd", "/../../etc/passwd", "/v1/../../../etc/passwd", "//etc/passwd",
                 "/.%2e/.%2e/etc/passwd"):
        if (got := victim.ask("GET", path, victim.reader)).status != 404:
            raise Hole(f"GET {path}: {got.status}")


def bad_json_is_refused_and_harms_nothing(victim: Victim) -> None:
    deep, wide = 100_000, ",".join(f'"k{number}":1' for number in range(20_000))
    bodies = {"nothing": b"", "a bomb of lists": b"[" * 2 * deep, "a closed bomb of lists": b"[" * deep + b"]" * deep,
              "a bomb of objects": b'{"a":' * (2 * deep // 5), "a bomb in a field": b'{"snapshot_tag":' + b"[" * deep
              + b"]" * deep + b"}",
              "a closed bomb of objects": b'{"snapshot_tag":' * 20_000 + b"1" + b"}" * 20_000, "a million zeros": b"["
              + b"0," * (2 * deep // 2) + b"0]",
              "many fields": b"{" + wide.encode() + b"}", "the same field": b"{" + b'"n":1,' * 20_000 + b'"n":1}',
              "a number over all": b'{"snapshot_tag":"none","n":1e999}', "a long number": b'{"snapshot_tag":"none","n":'
              + b"9" * 100_000 + b"}",
              "a fraction": b'{"snapshot_tag":"none","n":1.5}', "over 64 bits": b'{"snapshot_tag":"none","n":18446744073709551617}',
              "below zero": b'{"snapshot_tag":"none","n":-1}', "minus nothing": b'{"snapshot_tag":"none","n":-9223372036854775808}',
              "no number": b'{"snapshot_tag":"none","n":NaN}', "infinity": b'{"snapshot_tag":"none","n":Infinity}',
              "true": b'{"snapshot_tag":"none","n":true}',
              "a digit in text": b'{"snapshot_tag":"none","n":"1"}', "too many": b'{"snapshot_tag":"none","n":1001}',
              "a comment": b'{"snapshot_tag":"none" /* x */}', "a comma too many": b'{"snapshot_tag":"none",}',
              "single quotes": b"{'snapshot_tag':'none'}",
              "two values": b'{"snapshot_tag":"none"}{}', "the last of two": b'{"snapshot_tag":"none","snapshot_tag":"../x"}',
              "invalid UTF-8": b'{"snapshot_tag":"\xff\xfe"}', "an overlong slash": b'{"snapshot_tag":"..\xc0\xaf"}',
              "half a surrogate": b'{"snapshot_tag":"\\ud800"}',
              "a NUL": b'{"snapshot_tag":"none\0"}', "an escaped NUL": b'{"snapshot_tag":"none\\u0000"}',
              "UTF-16": '{"snapshot_tag":"none"}'.encode("utf-16"),
              "gzip": bytes.fromhex("1f8b0800000000000003abae0500430ba6b202000000"), "a list": b"[]", "null": b"null",
              "text": b'"x"', "binary": bytes(range(256)),
              "a prototype": b'{"__proto__":{"n":1}}', "a field of the answer": b'{"snapshot_tag":"none","pid":1}'}
    for what, body in bodies.items():
        answer = victim.ask("POST", "/v1/sandboxes", victim.writer, body=body)
        if answer.status != 400 or len(answer.body) > 4096:
            raise Hole(f"{what}: {answer.status} with {len(answer.body)} bytes: {answer.body[:200]}")
        json.loads(answer.body)
    victim.expect_served()


ATTACKS = [no_path_leaves_its_folder, no_name_leaves_its_folder, bad_json_is_refused_and_harms_nothing]
