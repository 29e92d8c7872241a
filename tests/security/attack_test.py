"""attack.py finds no hole in coppiced as it is meant to be run, and finds one wherever a protection is missing."""
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from certificates import Certificates  # noqa: E402
from coppiced import BUILD, JOURNAL, Coppiced  # noqa: E402

READER, WRITER = "reader-token-0123456789", "writer-token-0123456789"
FEW_DESCRIPTORS = 256  # the daemon must ask for more by itself


def attack(*options) -> dict[str, str]:
    """What attack.py tells: the verdict of each attack."""
    outcome = subprocess.run([sys.executable, HERE / "attack.py", *map(str, options)], stdout=subprocess.PIPE, text=True)
    print(outcome.stdout, flush=True)
    verdicts = {line[5:line.index(" (")]: line[:4].strip() for line in outcome.stdout.splitlines()}
    assert outcome.returncode == (1 if "HOLE" in verdicts.values() else 0), outcome.returncode
    return verdicts


class Attacked(unittest.TestCase):
    """With what attacks need: files of tokens, certificates, and a folder of kernels."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(dir="/var/tmp")))
        self.certificates = Certificates(self.folder)
        self.kernels = self.folder / "kernels"
        self.kernels.mkdir()
        shutil.copy(JOURNAL, self.kernels)
        self.write("reader", READER)
        self.write("writer", WRITER)
        self.write("tokens", f"watch read {READER}\nops write {WRITER}\n")

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o600)

    def start(self, *options: str) -> Coppiced:
        daemon = Coppiced(*options)
        self.addCleanup(daemon.stop)
        return daemon

    def start_guests(self, daemon: Coppiced, *options: str) -> None:
        """A snapshot and a sandbox, which the attacks must leave as they are."""
        for words in (["snapshot", "create", "base", "--kernel", self.kernels / "journal.elf", "--memory", "32M"],
                      ["sandbox", "create", "base"]):
            subprocess.run([BUILD / "bin" / "coppice", "--server", daemon.url, *options, *words], check=True,
                           stdout=subprocess.DEVNULL)

    def with_tokens(self) -> list[str]:
        return ["--write-token-file", self.file("writer"), "--read-token-file", self.file("reader")]

    def with_certificate(self) -> list[str]:
        names = {"--cert": "client.crt", "--key": "client.key", "--ca": "ca.crt", "--ca-key": "ca.key"}
        return [word for option, name in names.items() for word in (option, self.certificates.file(name))]

    def by_tls(self) -> list[str]:
        return ["--tls-cert", self.certificates.file("server.crt"), "--tls-key", self.certificates.file("server.key")]


class Guarded(Attacked):
    def test_a_guarded_daemon_has_no_hole(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, hard))
        daemon = self.start("--token-file", self.file("tokens"), *self.by_tls(), "--tls-client-ca",
                            self.certificates.file("ca.crt"),
                            "--audit-log", self.file("audit"), "--allow-path", str(self.kernels))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        by_client = {"--token-file": self.file("writer"), "--tls-ca": self.certificates.file("ca.crt"),
                     "--tls-cert": self.certificates.file("client.crt"),
                      "--tls-key": self.certificates.file("client.key")}
        self.start_guests(daemon, *(word for pair in by_client.items() for word in pair))
        verdicts = attack("--server", daemon.url, *self.with_tokens(), *self.with_certificate(), "--audit-log", self.file("audit"),
                          "--allowed-folder", self.kernels, "--token-file", self.file("tokens"), "--pid", daemon.process.pid)
        self.assertEqual(set(verdicts.values()), {"ok"})


class Local(Attacked):
    QUICK = ["page", "split", "large", "grow", "json", "name leaves", "get into another", "flood", "changed", "memory", "audit"]

    def test_a_daemon_for_local_callers_has_no_hole(self):
        daemon = self.start("--audit-log", self.file("audit"))
        self.start_guests(daemon)
        verdicts = attack("--server", daemon.url, "--audit-log", self.file("audit"), "--pid", daemon.process.pid,
                          *(word for words in self.QUICK for word in ("--only", words)))
        self.assertEqual(set(verdicts.values()), {"ok"})
        self.assertGreaterEqual(len(verdicts), len(self.QUICK))


class Weak(Attacked):
    """A check that can't fail is none: each is shown to fail."""

    def test_a_hole_is_found_where_the_daemon_lacks_a_protection(self):
        self.write("careless", f"watch write {READER}\nops write {WRITER}\n")
        self.write("none", "")
        tokens, careless = ["--token-file", self.file("tokens")], ["--token-file", self.file("careless")]
        claims = self.with_tokens()
        for missing, options, told, found in [
                ("tokens", [], claims, ["imitation", "routes there are", "that may read", "gets past"]),
                ("a reader's role", careless, claims, ["that may read"]),
                ("client certificates", [*tokens, *self.by_tls()], [*claims, *self.with_certificate()], ["right ca", "expired"]),
                ("allowed folders", [*tokens, "--allow-path", "/"], [*claims, "--allowed-folder", self.kernels], ["path leaves"]),
                ("an audit log", tokens, [*claims, "--audit-log", self.file("none")], ["audit"]),
                ("a reload of the tokens", tokens, [*claims, "--token-file", self.file("careless")], ["revoked"]),
                ("a look at what web pages send", ["--listen", "0.0.0.0:0", "--insecure-listen"], [], ["web page"]),
                ("a limit of connections of 500", tokens, [*claims, "--connection-limit", 500], ["flood"]),
                ("a time limit of headers of 1 s", tokens, [*claims, "--header-timeout", 1], ["slow clients"])]:
            with self.subTest(missing=missing):
                print(f"without {missing}:", flush=True)
                daemon = self.start(*options)
                if "--pid" not in told:
                    told = [*told, "--pid", daemon.process.pid]
                verdicts = attack("--server", daemon.url.replace("0.0.0.0", "127.0.0.1"), *told, "--patience", 10,
                                  *(word for words in found for word in ("--only", words)))
                self.assertEqual(list(verdicts.values()), ["HOLE"] * len(found))

    def test_each_attack_finds_a_hole_in_a_server_without_any_protection(self):
        server = subprocess.Popen([sys.executable, "-W", "ignore", HERE / "careless_server.py",
                                   self.certificates.file("server.crt"),
                                   self.certificates.file("server.key")], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.wait)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.kill)
        url = server.stdout.readline().strip()
        self.write("none", "")
        limits = ["--patience", "6"] + [word for name in ("header", "body", "write", "handshake")
                                        for word in (f"--{name}-timeout", "0.5")]
        verdicts = attack("--server", url, *self.with_tokens(), *self.with_certificate(), "--audit-log", self.file("none"),
                          "--allowed-folder", self.kernels, "--token-file", self.file("tokens"), "--pid", server.pid,
                          "--connection-limit", 100, *limits)
        self.assertGreater(len(verdicts), 18)
        self.assertEqual({name: verdict for name, verdict in verdicts.items() if verdict != "HOLE"}, {})


if __name__ == "__main__":
    if not pathlib.Path("/dev/kvm").exists():
        print("SKIPPED: no /dev/kvm")
        sys.exit(77)
    unittest.main(verbosity=2)
