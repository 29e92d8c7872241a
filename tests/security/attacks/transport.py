"""Who comes without TLS, with an old version of it, or without a certificate of the right CA."""
import contextlib
import ssl
import subprocess
import warnings

from .victim import Connection, Hole, Skipped, Victim


def need_tls(victim: Victim) -> None:
    if not victim.is_tls:
        raise Skipped("needs a server with https://")


def is_served(victim: Victim, context: ssl.SSLContext) -> bool:
    """Whether a request gets an answer. In TLS 1.3 a client learns after its handshake only that it was refused."""
    sock = victim.tcp()
    try:
        with Connection(victim, context.wrap_socket(sock)) as connection:
            connection.send(victim.whole("GET", "/healthz"))
            return connection.answer() is not None
    except OSError:
        return False
    finally:
        sock.close()


def openssl(victim: Victim, command: str) -> None:
    subprocess.run(f"openssl {command}", shell=True, check=True, cwd=victim.scratch, stderr=subprocess.DEVNULL)


NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def plain_http_is_not_served_on_a_port_of_tls(victim: Victim) -> None:
    need_tls(victim)
    for first in (victim.whole("GET", "/healthz"), victim.whole("GET", "/v1/snapshots", victim.writer), b"\x16\x03\x01\xff\xff"
                  + b"x" * 70_000,
                  b"\x80\x2e\x01\x00\x02", bytes(300), b"\r\n\r\n"):
        with Connection(victim, victim.tcp()) as connection:
            connection.send(first)
            answer = None
            with contextlib.suppress(Hole, ValueError, IndexError):  # silence, or an alert instead of an answer
                answer = connection.answer(patience=victim.options.handshake_timeout + 20)
        if answer is not None:
            raise Hole(f"{first[:20]!r} is answered by {answer.status}")


def old_versions_of_tls_are_refused(victim: Victim) -> None:
    need_tls(victim)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context = victim.tls_context(victim.own_certificate())
            context.set_ciphers("DEFAULT@SECLEVEL=0")  # the client's own objections are none
            context.minimum_version = context.maximum_version = version
        if is_served(victim, context):
            raise Hole(f"{version.name} is served")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = victim.tls_context(victim.own_certificate())
        context.minimum_version = context.maximum_version = version
        if not is_served(victim, context):
            raise Hole(f"{version.name} is not served: the attack is weaker than it seems")
    for weak in ("aNULL", "eNULL", "RC4", "3DES", "EXPORT"):
        context = victim.tls_context(victim.own_certificate())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with contextlib.suppress(ssl.SSLError):  # this OpenSSL has none of it
            context.set_ciphers(f"{weak}@SECLEVEL=0")
            if is_served(victim, context):
                raise Hole(f"a cipher of {weak} is served")


def who_has_no_certificate_of_the_right_ca_is_not_served(victim: Victim) -> None:
    victim.need("cert", "key")
    if is_served(victim, victim.tls_context()):
        raise Hole("no certificate is needed")
    openssl(victim, f"req -x509 {NEW_KEY} -days 2 -subj /CN=ops -keyout own.key -out own.crt")
    openssl(victim, f"req -x509 {NEW_KEY} -days 2 -subj /CN=ca -keyout ca.key -out ca.crt")
    openssl(victim, f"req {NEW_KEY} -subj /CN=ops -keyout theirs.key -out theirs.csr")
    openssl(victim, "x509 -req -days 2 -CAcreateserial -CA ca.crt -CAkey ca.key -in theirs.csr -out theirs.crt")
    for name, what in (("own", "signed by itself"), ("theirs", "of another CA")):
        if is_served(victim, victim.tls_context((victim.scratch / f"{name}.crt", victim.scratch / f"{name}.key"))):
            raise Hole(f"a certificate {what} is served")


def an_expired_certificate_is_not_served(victim: Victim) -> None:
    victim.need("cert", "ca", "ca-key")
    openssl(victim, f"req {NEW_KEY} -subj /CN=ops -keyout late.key -out late.csr")
    sign = f"x509 -req -CAcreateserial -CA {victim.options.ca} -CAkey {victim.options.ca_key} -in late.csr -out late.crt -days"
    for days, served in ((2, True), (-1, False)):
        openssl(victim, f"{sign} {days}")
        if is_served(victim, victim.tls_context((victim.scratch / "late.crt", victim.scratch / "late.key"))) != served:
            raise Hole(f"a certificate that ends in {days} days is {'not ' if served else ''}served")


ATTACKS = [plain_http_is_not_served_on_a_port_of_tls, old_versions_of_tls_are_refused,
           who_has_no_certificate_of_the_right_ca_is_not_served,
           an_expired_certificate_is_not_served]
