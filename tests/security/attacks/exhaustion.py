"""Clients that hold on to what they share with others: connections and time."""
import concurrent.futures
import resource
import socket
import time

from .victim import Connection, Hole, Victim, readable

SLACK = 20  # seconds that a busy host may be late
HONEST_PATIENCE = 10  # seconds that an honest client may wait amid all that
DEAF_REQUESTS = 400  # their answers are more than the buffers of two sockets hold, they themselves are less


def until_cut_off(connection: Connection, data: bytes, every: float, limit: float, what: str) -> None:
    """Sends `data` again and again until the daemon hangs up, which must be within `limit` seconds."""
    connection.deaf = True
    until = time.monotonic() + limit + SLACK
    while time.monotonic() < until:
        if (data and not connection.send(data)) or connection.hung_up(every):
            return
    raise Hole(f"{what} still has its connection after {limit + SLACK:.0f} s")


def drips_its_header(victim: Victim, data: bytes, what: str) -> None:
    with victim.connect() as connection:
        connection.send(victim.head("GET", "/v1/snapshots", victim.reader))
        until_cut_off(connection, data, 0.5, victim.options.header_timeout, what)


def drips_its_body(victim: Victim, first: bytes, data: bytes, what: str) -> None:
    with victim.connect() as connection:
        connection.send(first)
        until_cut_off(connection, data, 0.5, victim.options.body_timeout, what)


def drips_its_handshake(victim: Victim, data: bytes, what: str) -> None:
    limit = victim.options.handshake_timeout if victim.is_tls else victim.options.header_timeout
    with Connection(victim, victim.tcp()) as connection:
        until_cut_off(connection, data, 0.5, limit, what)


def does_not_read(victim: Victim, bytes_a_second: int, what: str) -> None:
    """Who is cut off has not got all answers when it reads at last."""
    request = victim.whole("GET", "/v1/openapi.json", victim.reader)
    whole = len(victim.ask("GET", "/v1/openapi.json", victim.reader).body)
    with victim.connect(receive_buffer=4096) as connection:
        connection.deaf = True
        if not connection.send(request * DEAF_REQUESTS):
            raise Hole("the requests are not taken: the attack is weaker than it seems")
        got = 0
        for _ in range(int(victim.options.write_timeout) + SLACK):
            time.sleep(1)
            got += len(receive(connection, bytes_a_second)) if bytes_a_second else 0
        while more := receive(connection, 2**20):
            got += len(more)
    if got >= whole * DEAF_REQUESTS:
        raise Hole(f"{what} gets all {got} bytes of its answers after {victim.options.write_timeout + SLACK:.0f} s")


def receive(connection: Connection, most: int) -> bytes:
    connection.socket.settimeout(connection.victim.options.patience)
    try:
        return connection.socket.recv(most)
    except OSError:
        return b""


def slow_clients_are_cut_off_while_others_are_served(victim: Victim) -> None:
    body = victim.head("POST", "/v1/snapshots", victim.writer, "Content-Length: 100000") + b"\r\n{"
    chunks = victim.head("POST", "/v1/snapshots", victim.writer, "Transfer-Encoding: chunked") + b"\r\n"
    slow = [(drips_its_header, b"", "who sends half a header"), (drips_its_header, b"x", "who drips its header"),
            (drips_its_header, b"X: y\r\n", "who sends a field at a time"), (drips_its_handshake, b"", "who says nothing"),
            (drips_its_handshake, b"\x16" if victim.is_tls else b"\r\n", "who drips its first bytes"),
            (drips_its_body, body, b"", "who sends half a body"), (drips_its_body, body, b" ", "who drips its body"),
            (drips_its_body, chunks, b"1\r\n \r\n", "who sends a byte a chunk"),
            (does_not_read, 0, "who doesn't read"), (does_not_read, 200, "who reads 200 bytes a second")]
    with concurrent.futures.ThreadPoolExecutor(len(slow)) as pool, victim.connect() as kept:
        running = [pool.submit(attack, victim, *arguments) for attack, *arguments in slow]
        while not all(each.done() for each in running):
            for connection in (None, kept):
                began = time.monotonic()
                victim.expect_served(connection)
                if (took := time.monotonic() - began) > HONEST_PATIENCE:
                    raise Hole(f"amid slow clients an honest one waits {took:.1f} s")
            time.sleep(0.5)
    if holes := [str(each.exception()) for each in running if each.exception()]:
        raise Hole("; ".join(holes))


def a_flood_of_connections_is_bounded_and_goes_by(victim: Victim) -> None:
    limit = victim.options.connection_limit
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * limit + 200), hard))
    flood: list[socket.socket] = []
    with victim.connect() as kept:
        victim.expect_served(kept)
        try:
            for _ in range(limit + 100):
                flood.append(victim.tcp())
            until = time.monotonic() + victim.options.patience
            while readable(flood) < 100 and time.monotonic() < until:
                time.sleep(0.05)
            taken = len(flood) - readable(flood)
            victim.expect_served(kept)
        finally:
            for each in flood:
                each.close()
    if not 0.9 * limit <= taken <= limit:
        raise Hole(f"{taken} connections of {limit + 100} are taken, the limit is {limit}")
    until = time.monotonic() + victim.options.patience
    while True:  # the ends of so many may be seen late
        try:
            return victim.expect_served()
        except Hole:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


ATTACKS = [slow_clients_are_cut_off_while_others_are_served, a_flood_of_connections_is_bounded_and_goes_by]
