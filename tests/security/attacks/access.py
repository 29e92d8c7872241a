"""Who has no token, or one that may only read, tries all the same; and so does a web page."""
import base64
import hashlib
import json

from .victim import BODY_SECRET, Hole, Skipped, Victim


def routes(victim: Victim) -> list[tuple[str, str]]:
    """Method and path of all, with the names of what there is."""
    described = json.loads(victim.ask("GET", "/v1/openapi.json", victim.reader).body)["paths"]
    tags = [each["tag"] for each in json.loads(victim.before[0])]
    ids = [each["id"] for each in json.loads(victim.before[1])]
    names = {"{tag}": (tags or ["none"])[0], "{id}": (ids or ["none"])[0]}
    found = []
    for path, methods in described.items():
        for name, value in names.items():
            path = path.replace(name, value)
        found += [(method.upper(), path) for method in methods]
    return found


def expect(victim: Victim, status: int, what: str, method: str, target: str, token, *lines: str, body=None) -> None:
    got = victim.ask(method, target, token, *lines, body=body)
    if got.status != status:
        raise Hole(f"{what}: {method} {target[:80]} is answered by {got.status}, not {status}")


def no_token_and_no_imitation_of_one_is_served(victim: Victim) -> None:
    victim.need_tokens()
    token = victim.writer
    swapped = token.swapcase() if token.swapcase() != token else token[::-1]
    basic = base64.b64encode(f"ops:{token}".encode()).decode()
    digest = hashlib.sha256(token.encode()).hexdigest()
    imitations = {
        "none": [], "wrong": ["Authorization: Bearer wrong-token-0123456789"], "other case": [f"Authorization: Bearer {swapped}"],
        "truncated": [f"Authorization: Bearer {token[:-1]}"], "without its first letter": [f"Authorization: Bearer {token[1:]}"],
        "with one more letter": [f"Authorization: Bearer {token}x"], "twice": [f"Authorization: Bearer {token}{token}"],
        "two spaces": [f"Authorization: Bearer  {token}"], "no scheme": [f"Authorization: {token}"],
        "Basic": [f"Authorization: Basic {basic}"], "its digest": [f"Authorization: Bearer {digest}"],
        "empty": ["Authorization: Bearer "], "the second of two": ["Authorization: Bearer wrong-token-0123456789",
                                                                   f"Authorization: Bearer {token}"],
        "cookie": [f"Cookie: token={token}"], "other header": [f"X-Api-Key: {token}", f"X-Auth-Token: {token}"],
        "proxy's header": [f"Proxy-Authorization: Bearer {token}"], "trusted address": ["X-Forwarded-For: 127.0.0.1"],
        "trusted user": ["X-Forwarded-User: root", "X-Remote-User: ops"], "open route": ["X-Original-URL: /healthz"]}
    for what, lines in imitations.items():
        expect(victim, 401, "token " + what, "GET", "/v1/snapshots", None, *lines)
    for name in ("token", "access_token", "api_key", "authorization"):
        expect(victim, 401, "token in the query", "GET", f"/v1/snapshots?{name}={token}", None)
    expect(victim, 401, "token in the body", "POST", "/v1/sandboxes", None, body=json.dumps({"token": token}).encode())


def what_routes_there_are_is_not_told_without_a_token(victim: Victim) -> None:
    victim.need_tokens()
    tricks = ["/", "/v1", "/v1/", "/no/such/route", "//v1/snapshots", "/v1//snapshots", "/v1/./snapshots", "/V1/snapshots",
              "/v1/snapshots/", "/v1/snapshots;x", "/healthz/../v1/snapshots", "/version/../v1/snapshots", "/healthz/v1/snapshots",
              "/%76%31/snapshots", "/v1%2fsnapshots", "/v1/snapshots%00", "/v1/snapshots?/healthz", "/v1/snapshots#/healthz",
              "http://localhost/v1/snapshots", "*", "/healthz%2f..%2fv1/snapshots"]
    for method, path in routes(victim) + [("GET", trick) for trick in tricks]:
        if path not in ("/healthz", "/version"):
            expect(victim, 401, "without a token", method, path, None, body=None if method == "GET" else b"")
    for method in ("HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "CONNECT", "get", "DELETE"):
        expect(victim, 401, "without a token", method, "/v1/snapshots", None)


def a_token_that_may_read_changes_nothing(victim: Victim) -> None:
    victim.need_tokens()
    secret = json.dumps({"tag": BODY_SECRET}).encode()
    changing = [(method, path) for method, path in routes(victim) if method != "GET"]
    if len(changing) < 9:
        raise Hole(f"the description has only {len(changing)} changing routes: the attack is weaker than it seems")
    for method, path in changing:
        expect(victim, 403, "with the token that may read", method, path, victim.reader, body=secret)
        expect(victim, 403, "both tokens, the reader's first", method, path, victim.reader,
               f"Authorization: Bearer {victim.writer}", body=secret)
    expect(victim, 403, "a GET that changes", "GET", next(path for _, path in routes(victim) if path.endswith("/journal")) +
           "?reset=true", victim.reader)


def no_header_or_parameter_makes_a_get_into_another_method(victim: Victim) -> None:
    for method, path in routes(victim):
        if method != "DELETE":
            continue
        read = path + "/info" if "/snapshots/" in path else path
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            expect(victim, 200, name, "GET", read, victim.reader, f"{name}: DELETE")
        for wrong in ("_method=DELETE", "method=DELETE"):
            expect(victim, 400, "method in the query", "GET", f"{read}?{wrong}", victim.reader)
    if victim.state() != victim.before:
        raise Hole("a GET deleted something")


def a_web_page_is_not_served(victim: Victim) -> None:
    """A browser on the host sends them for any page; see docs/security.md."""
    if victim.is_unix:
        raise Skipped("a page can't open a unix socket")
    if victim.has_tokens:  # a page has none
        for lines in (["Origin: https://evil.example"], ["Host: evil.example"], ["Sec-Fetch-Site: cross-site"]):
            expect(victim, 401, str(lines), "GET", "/v1/snapshots", None, *lines)
        return
    pages = [["Origin: https://evil.example"], ["Origin: null"], ["Origin: http://127.0.0.1"], ["Origin: http://localhost:1"],
             ["Host: evil.example"], ["Host: localhost.evil.example"], ["Host: 127.0.0.1.evil.example"], ["Host: 0x7f000001"],
             ["Host: evil.example:80"], ["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site"],
             ["Content-Type: text/plain", "Origin: https://evil.example"], ["Host: localhost.", "Origin: null"]]
    for lines in pages:
        for method, path in (("GET", "/v1/snapshots"), ("GET", "/healthz"), ("POST", "/v1/sandboxes"),
                             ("OPTIONS", "/v1/sandboxes")):
            own = [] if any(line.startswith("Host") for line in lines) else ["Host: 127.0.0.1"]
            request = "".join(f"{line}\r\n" for line in [f"{method} {path} HTTP/1.1", *own, *lines, ""]).encode()
            with victim.connect() as connection:
                connection.send(request)
                answer = connection.answer()
            if answer is None or answer.status != 403:
                raise Hole(f"{lines}: {method} {path} is answered by {answer and answer.status}, not 403")
            if any(name.startswith("access-control") for name in answer.headers):
                raise Hole(f"{lines}: a page may read the answer")


ATTACKS = [no_token_and_no_imitation_of_one_is_served, what_routes_there_are_is_not_told_without_a_token,
           a_token_that_may_read_changes_nothing, no_header_or_parameter_makes_a_get_into_another_method, a_web_page_is_not_served]
