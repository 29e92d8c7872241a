"""The daemon that is attacked, seen from outside: connections that send what an attack says, and a record of each answer."""
import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import select
import socket
import ssl
import tempfile
import time
import urllib.parse

BODY_SECRET = "a-secret-that-is-sent-in-bodies-only"


class Hole(Exception):
    """An attack that succeeded."""


class Skipped(Exception):
    """An attack that can't be tried: what is missing."""


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: dict  # by lower-case names
    body: bytes


class Connection:
    """Answers are read one by one. A connection whose answers nobody reads must be marked as deaf."""

    def __init__(self, victim, sock: socket.socket):
        self.victim = victim
        self.socket = sock
        self.deaf = False
        self.unread = b""
        name = sock.getsockname()
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.victim.peers[self.peer] = self.victim.peers.get(self.peer, False) or self.deaf
        self.socket.close()

    def send(self, data: bytes, patience: float | None = None) -> bool:
        """False if the daemon hung up, or takes nothing more for so long."""
        self.socket.settimeout(patience or self.victim.options.patience)
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def _receive(self, until: float) -> bytes:
        """Empty if the daemon hung up."""
        self.socket.settimeout(max(until - time.monotonic(), 0.001))
        try:
            return self.socket.recv(65536)
        except TimeoutError:
            self.deaf = True  # it may come yet
            raise Hole("no answer, and no end either") from None
        except OSError:
            return b""

    def answer(self, method: str = "GET", patience: float | None = None) -> Answer | None:
        """The next one; None if the daemon hung up instead. `method` is that of the request."""
        until = time.monotonic() + (patience or self.victim.options.patience)
        while b"\r\n\r\n" not in self.unread:
            more = self._receive(until)
            if not more:
                self.deaf = True  # a reset may have overtaken an answer
                return None
            self.unread += more
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        length = 0 if status in (100, 204) or method == "HEAD" else int(headers.get("content-length", 0))
        while len(self.unread) < length:
            more = self._receive(until)
            if not more:
                return None
            self.unread += more
        body, self.unread = self.unread[:length], self.unread[length:]
        if status != 100 and not (status == 503 and b"too many connections" in body):  # those requests were never read
            self.victim.answered[headers.get("x-request-id", "none")].append(status)
        return Answer(status, headers, body)

    def answers(self, patience: float | None = None) -> list[Answer]:
        """All, until the daemon hangs up."""
        found = []
        while (answer := self.answer(patience=patience)) is not None:
            found.append(answer)
        return found

    def hung_up(self, patience: float) -> bool:
        """Whether the daemon hangs up within so many seconds, whatever it sends before."""
        until = time.monotonic() + patience
        try:
            while self._receive(until):
                pass
        except Hole:
            return False
        return True


class Victim:
    """See attack.py's --help for the options that it is made of."""

    def __init__(self, options):
        self.options = options
        self.url = options.server
        parts = urllib.parse.urlsplit(options.server)
        self.is_unix = options.server.startswith("unix:")
        self.is_tls = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port
        self.writer = read_token(options.write_token_file)
        self.reader = read_token(options.read_token_file)
        self.has_tokens = self.writer is not None
        self.answered = collections.defaultdict(list)  # statuses by request id
        self.peers = {}  # our ends of the connections there were, and whether answers to it were left unread
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="attack-"))
        self.audit_begin = os.path.getsize(options.audit_log) if options.audit_log else 0
        self.memory_before, self.fds_before = self.memory(), self.fds()
        self.before = self.state()

    def need(self, *names: str) -> None:
        """Skips the attack unless these options were given."""
        if missing := ["--" + name for name in names if not getattr(self.options, name.replace("-", "_"))]:
            raise Skipped("needs " + ", ".join(missing))

    def need_tokens(self) -> None:
        self.need("write-token-file", "read-token-file")

    # Of the process; None without --pid.
    def memory(self) -> int | None:
        """Bytes in RssAnon."""
        if not self.options.pid:
            return None
        status = pathlib.Path(f"/proc/{self.options.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", status).group(1)) * 1024

    def fds(self) -> int | None:
        return len(os.listdir(f"/proc/{self.options.pid}/fd")) if self.options.pid else None

    def tls_context(self, certificate=None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # whom the attacker talks to is none of its worries
        context.verify_mode = ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def own_certificate(self):
        return (self.options.cert, self.options.key) if self.options.cert else None

    def tcp(self, receive_buffer: int | None = None) -> socket.socket:
        """A connected socket, before any TLS."""
        sock = socket.socket(socket.AF_UNIX if self.is_unix else socket.AF_INET6 if ":" in (self.host or "") else socket.AF_INET)
        sock.settimeout(self.options.patience)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(self.url.removeprefix("unix:") if self.is_unix else (self.host, self.port))
        except OSError as failure:
            sock.close()
            raise Hole(f"no connection: {failure}") from None
        return sock

    def connect(self, receive_buffer: int | None = None) -> Connection:
        sock = self.tcp(receive_buffer)
        if self.is_tls:
            try:
                sock = self.tls_context(self.own_certificate()).wrap_socket(sock)
            except OSError as failure:
                sock.close()
                raise Hole(f"who has a certificate gets no connection: {failure}") from None
        return Connection(self, sock)

    def head(self, method: str, target: str, token: str | None = None, *lines: str) -> bytes:
        """A request's header without its empty line."""
        all_lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host or 'localhost'}"]
        if token:
            all_lines.append(f"Authorization: Bearer {token}")
        return "".join(f"{line}\r\n" for line in [*all_lines, *lines]).encode("latin-1")

    def whole(self, method: str, target: str, token: str | None = None, *lines: str, body: bytes | None = None) -> bytes:
        length = [] if body is None else [f"Content-Length: {len(body)}"]
        return self.head(method, target, token, *lines, *length) + b"\r\n" + (body or b"")

    def ask(self, method: str, target: str, token: str | None = None, *lines: str, body: bytes | None = None) -> Answer:
        """The answer to one request on a connection of its own."""
        with self.connect() as connection:
            connection.send(self.whole(method, target, token, *lines, body=body))
            answer = connection.answer(method)
        if answer is None:
            raise Hole(f"hung up on {method} {target[:80]}")
        return answer

    def state(self) -> list[bytes]:
        """The lists of snapshots and of sandboxes."""
        return [self.ask("GET", f"/v1/{what}", self.reader).body for what in ("snapshots", "sandboxes")]

    def expect_served(self, connection: Connection | None = None) -> None:
        """An honest client is, on a new connection or its own."""
        request = self.whole("GET", "/v1/snapshots", self.reader)
        with contextlib.ExitStack() as at_end:
            if connection is None:
                connection = at_end.enter_context(self.connect())
            connection.send(request)
            answer = connection.answer()
        if answer is None or answer.status != 200:
            raise Hole(f"an honest client gets {answer and answer.status}")


def read_token(file: str | None) -> str | None:
    """A bare token, or the last word of a line of the daemon's token file."""
    return pathlib.Path(file).read_text().split()[-1] if file else None


def readable(sockets: list[socket.socket]) -> int:
    """How many have something to read, an end included."""
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLIN)
    return len(poll.poll(0))
