"""Requests that two readers would split differently, and larger ones than are taken."""
import time

from .victim import BODY_SECRET, Hole, Victim

MIB = 2**20
MOST_TAKEN = 48 * MIB  # of what is refused: what the daemon reads to get its answer through, and the buffers of two sockets
MOST_MEMORY = 64 * MIB
HIDDEN = "/version"  # asked for by the request that hides behind or inside another: nobody else asks for it here


def hidden(victim: Victim) -> bytes:
    return victim.whole("GET", HIDDEN, victim.reader)


def statuses(victim: Victim, request: bytes) -> list[int]:
    """Of all answers, in their order. The request ends with one that closes, if it is read that far."""
    with victim.connect() as connection:
        connection.send(request + victim.whole("GET", "/healthz", None, "Connection: close"))
        return [answer.status for answer in connection.answers()]


def expect_refused(victim: Victim, what: str, request: bytes) -> None:
    """By one answer of 400, after which nothing of the connection is read."""
    if (got := statuses(victim, request + hidden(victim))) != [400]:
        raise Hole(f"{what}: answered by {got}, not by one 400")


def what_two_readers_would_split_differently_is_refused(victim: Victim) -> None:
    def post(*lines: str, body: bytes) -> bytes:
        return victim.head("POST", "/v1/sandboxes", victim.writer, *lines) + b"\r\n" + body

    none = b"0\r\n\r\n"
    for what, request in {
            "length and chunks": post("Content-Length: 5", "Transfer-Encoding: chunked", body=none),
            "chunks and length": post("Transfer-Encoding: chunked", "Content-Length: 5", body=none),
            "two lengths": post("Content-Length: 2", "Content-Length: 3", body=b"{} "),
            "a list of lengths": post("Content-Length: 2, 3", body=b"{} "),
            "a length with a sign": post("Content-Length: +2", body=b"{}"),
            "a negative length": post("Content-Length: -2", body=b"{}"),
            "a length in hex": post("Content-Length: 0x2", body=b"{}"), "no length": post("Content-Length:", body=b"{}"),
            "a length over 64 bits": post("Content-Length: 18446744073709551618", body=b"{}"),
            "a space before the colon": post("Transfer-Encoding : chunked", body=none),
            "a coding that is none": post("Transfer-Encoding: xchunked", body=none),
            "a coding that is none, and a length": post("Transfer-Encoding: xchunked", "Content-Length: 5", body=none),
            "no coding at all": post("Transfer-Encoding: identity", "Content-Length: 5", body=none),
            "chunks not last": post("Transfer-Encoding: chunked, identity", body=none),
            "a coding that isn't undone": post("Transfer-Encoding: gzip, chunked", body=none),
            "chunks twice": post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=none),
            "a coding, and chunks in another line": post("Transfer-Encoding: x", "Transfer-Encoding: chunked", body=none),
            "a control before the coding": post("Transfer-Encoding: \x0bchunked", body=none),
            "chunks in HTTP/1.0": post("Transfer-Encoding: chunked", body=none).replace(b"HTTP/1.1", b"HTTP/1.0"),
            "a bare LF after the first line": post("Content-Length: 2", body=b"{}").replace(b"\r\n", b"\n", 1),
            "a bare LF after a field": post("X: y\nContent-Length: 2", body=b"{}"),
            "a bare CR in a field": post("X: y\rContent-Length: 2", body=b"{}"),
            "a NUL in a field": post("X: a\0b", body=b""),
            "a field without a colon": post("Content-Length 2", body=b"{}"),
            "a first line that is folded": post("Content-Length: 0", body=b"").replace(b"\r\n", b"\r\n X: y\r\n", 1),
            "a bare LF after a chunk's size": post("Transfer-Encoding: chunked", body=b"2\n{}\r\n0\r\n\r\n"),
            "a chunk's size in C": post("Transfer-Encoding: chunked", body=b"0x2\r\n{}\r\n0\r\n\r\n"),
            "a negative chunk": post("Transfer-Encoding: chunked", body=b"-2\r\n{}\r\n0\r\n\r\n"),
            "a chunk over 64 bits": post("Transfer-Encoding: chunked", body=b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
            "a chunk longer than its size": post("Transfer-Encoding: chunked", body=b"1\r\n{}\r\n0\r\n\r\n"),
            "a length after the body": post("Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\nContent-Length: 50\r\n\r\n"),
            "an extension that is none": post("Transfer-Encoding: chunked", body=b"2 ;;;\"\r\n{}\r\n0\r\n\r\n"),
            "no version": b"GET /healthz\r\n\r\n", "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "version 1.2": b"GET /healthz HTTP/1.2\r\n\r\n"}.items():
        expect_refused(victim, what, request)


def what_is_legal_is_split_as_everybody_does(victim: Victim) -> None:
    """The body is {}, which lacks a field, and names the only request that is answered by 400; the next one is another."""
    for what, lines, body in [
            ("a folded coding", ["Transfer-Encoding:\r\n chunked"], b"2\r\n{}\r\n0\r\n\r\n"),
            ("a folded length", ["Content-Length:\r\n 2"], b"{}"), ("the same length twice",
                                                                    ["Content-Length: 2", "Content-Length: 2"], b"{}"),
            ("an extension", ["Transfer-Encoding: chunked"], b"2;a=b;c=\"d\"\r\n{}\r\n0;e\r\n\r\n"),
            ("a trailer", ["Transfer-Encoding: chunked"], b"2\r\n{}\r\n0\r\nHost: evil.example\r\nX: y\r\n\r\n"),
            ("a request inside a body", [f"Content-Length: {len(hidden(victim))}"], hidden(victim)),
            ("an upgrade", ["Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2"], b"{}")]:
        request = victim.head("POST", "/v1/sandboxes", victim.writer, *lines) + b"\r\n" + body
        if (got := statuses(victim, request)) != [400, 200]:
            raise Hole(f"{what}: answered by {got}, not by 400 and 200")


def nothing_gets_past_a_request_that_was_refused(victim: Victim) -> None:
    victim.need_tokens()
    inside = victim.whole("GET", "/v1/snapshots", victim.reader)
    body = victim.head("POST", "/v1/sandboxes", None, f"Content-Length: {len(inside)}") + b"\r\n" + inside
    if (got := statuses(victim, body)) != [401]:
        raise Hole(f"a request inside a refused body: {got}, not one 401")
    if (got := statuses(victim, victim.head("POST", "/v1/sandboxes", None, "Transfer-Encoding: chunked") + b"\r\n")) != [401]:
        raise Hole(f"a request after a refused body: {got}, not one 401")
    bare = victim.whole("GET", "/v1/snapshots", None)
    if (got := statuses(victim, bare + inside + bare + victim.whole("DELETE", "/v1/snapshots/x", victim.reader) + bare)) != [
            401, 200, 401, 403, 401, 200]:
        raise Hole(f"requests of several callers on a connection: {got}")
    trailer = victim.head("DELETE", "/v1/snapshots/x", victim.reader, "Transfer-Encoding: chunked") + (
        f"\r\n0\r\nAuthorization: Bearer {victim.writer}\r\n\r\n").encode()
    if (got := statuses(victim, trailer)) != [403, 200]:
        raise Hole(f"a token after the body: {got}, not 403")


def pour(victim: Victim, what: str, wanted: tuple, first: bytes, more: bytes) -> None:
    """Sends without an end: it must be refused soon, and cost no memory."""
    before = victim.memory()
    began = time.monotonic()
    sent = 0
    highest = before or 0
    with victim.connect() as connection:
        connection.deaf = True
        connection.send(first)
        while sent <= MOST_TAKEN and connection.send(more, patience=5):
            sent += len(more)
            highest = max(highest, victim.memory() or 0)
        try:
            answer = connection.answer(patience=5)
        except Hole:
            answer = None
    if sent > MOST_TAKEN:
        raise Hole(f"{what}: {sent // MIB} MiB were taken in {time.monotonic() - began:.1f} s"
                   + (f", memory grew by {(highest - before) // MIB} MiB" if before else ""))
    if before and highest - before > MOST_MEMORY:
        raise Hole(f"{what}: memory grew by {(highest - before) // MIB} MiB")
    if answer is not None and answer.status not in wanted:  # a reset may have overtaken it
        raise Hole(f"{what}: answered by {answer.status}")


def what_is_too_large_is_refused_before_it_is_read(victim: Victim) -> None:
    def post(token, *lines: str) -> bytes:
        return victim.head("POST", "/v1/sandboxes", token, *lines) + b"\r\n"

    for what, status, request in [
            ("a body of 1 MiB and a byte", 413, post(victim.writer, f"Content-Length: {MIB + 1}")),
            ("a body of 1 TB", 413, post(victim.writer, "Content-Length: 1000000000000")),
            ("a chunk of 4 GiB", 413, post(victim.writer, "Transfer-Encoding: chunked") + b"ffffffff\r\n"),
            ("a header of 20 KiB", 431, victim.head("GET", "/healthz", None, "X: " + "x" * 20_000)),
            ("a target of 20 KiB", 431, victim.head("GET", "/" + "x" * 20_000))]:
        with victim.connect() as connection:
            connection.send(request)
            answer = connection.answer()
        if answer is None or answer.status != status:
            raise Hole(f"{what}: answered by {answer and answer.status}, not {status}")
    some = b"x" * 65536
    chunked = "Transfer-Encoding: chunked"
    for who, token, refusal in (("writer", victim.writer, (400, 413, 431)), ("reader", victim.reader, (400, 413, 431)),
                                ("nobody", None, (401,))):
        if token is None and victim.has_tokens != (who == "nobody"):
            continue
        pour(victim, f"chunks without an end by {who}", refusal, post(token, chunked), b"10000\r\n" + some + b"\r\n")
        pour(victim, f"an endless extension by {who}", refusal, post(token, chunked) + b"1;", some)
        pour(victim, f"an endless size by {who}", refusal, post(token, chunked), b"0" * 65536)
        pour(victim, f"endless trailers by {who}", refusal, post(token, chunked) + b"0\r\n", b"X: " + some + b"\r\n")
    pour(victim, "endless fields", (431,), b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 1000)
    pour(victim, "an endless field", (431,), b"GET / HTTP/1.1\r\nX: ", some)
    pour(victim, "an endless target", (431,), b"GET /", some)
    pour(victim, "endless blank lines", (400, 431), b"", b"\r\n" * 1000)
    victim.expect_served()


def an_answer_does_not_grow_with_what_was_sent(victim: Victim) -> None:
    long = "x" * 300_000
    for target, body in [("/v1/snapshots", f'{{"tag":"a","kernel":"/{long}"}}'), ("/v1/snapshots",
                                                                                  f'{{"tag":"{long}","kernel":"/a"}}'),
                         ("/v1/snapshots", f'{{"tag":"a","kernel":"/a","rootfs":"/{long}"}}'), ("/v1/sandboxes", f'{{"{long}":1}}'),
                         ("/v1/sandboxes", f'"{long}'), ("/v1/sandboxes", f'"{long}\x01"'),
                         ("/v1/sandboxes", f'{{"n":1{"0" * 300_000}}}'),
                         ("/v1/sandboxes", f'{{"snapshot_tag":"{long}"}}'), ("/v1/sandboxes/none/branch", f'{{"mode":"{long}"}}'),
                         ("/v1/sandboxes", json_secret(long))]:
        answer = victim.ask("POST", target, victim.writer, body=body.encode())
        if not 400 <= answer.status < 500 or len(answer.body) > 4096:
            raise Hole(f"{target} {body[:40]}...: {answer.status} with {len(answer.body)} bytes")


def json_secret(long: str) -> str:
    return f'{{"snapshot_tag":"{BODY_SECRET}","more":"{long}"}}'


ATTACKS = [what_two_readers_would_split_differently_is_refused, what_is_legal_is_split_as_everybody_does,
           nothing_gets_past_a_request_that_was_refused, what_is_too_large_is_refused_before_it_is_read,
           an_answer_does_not_grow_with_what_was_sent]
