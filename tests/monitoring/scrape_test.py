"""A daemon with tokens and TLS, scraped by Prometheus with the configuration that deploy/ has, adapted as its comments say."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from coppiced import Coppiced  # noqa: E402
from prometheus import Prometheus  # noqa: E402

SHIPPED = HERE.parent.parent / "deploy" / "prometheus"
READER = "reader-0123456789abcdef"
PATIENCE = 60  # seconds


def make_certificates(folder: pathlib.Path) -> None:
    """A CA, and what it signed for a server at 127.0.0.1."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (f"req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out coppice-ca.pem",
                    f"req {key} -subj /CN=server -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.csr",
                    "x509 -req -days 2 -copy_extensions copy -CAcreateserial -CA coppice-ca.pem -CAkey ca.key"
                    " -in server.csr -out server.crt"):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, stderr=subprocess.DEVNULL)


def adapted(folder: pathlib.Path, target: str, commented_out: tuple) -> str:
    """The shipped configuration with these of its comments put into force, each second, for this target and folder."""
    text = (SHIPPED / "prometheus.yml").read_text()
    for name in commented_out:
        text, found = re.subn(f"(?m)^    # ({name}: .*)$", r"    \1", text)
        assert found == 1, name
    text = text.replace("/etc/prometheus", str(folder)).replace("15s", "1s").replace("127.0.0.1:8889", target)
    return re.sub(r"(?m)^  - (\w+\.rules\.yml)$", rf"  - {SHIPPED}/\1", text)


class Scrape(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        make_certificates(self.folder)
        tokens = self.folder / "tokens"
        tokens.write_text(f"prometheus read {READER}\n")
        tokens.chmod(0o600)
        self.daemon = Coppiced("--token-file", str(tokens), "--tls-cert", str(self.folder / "server.crt"), "--tls-key",
                               str(self.folder / "server.key"))
        self.addCleanup(self.daemon.stop)

    def scraped_with(self, token: str, *commented_out: str) -> tuple[Prometheus, dict]:
        """A Prometheus, and what became of its first scrape that was not cut off at the end of its second."""
        (self.folder / "coppice.token").write_text(token)
        target = self.daemon.url.removeprefix("https://")
        prometheus = Prometheus(adapted(self.folder, target, commented_out))
        self.addCleanup(prometheus.stop)
        for _ in range(10 * PATIENCE):
            for state in prometheus.get("targets")["activeTargets"]:
                if state["health"] != "unknown" and "deadline exceeded" not in state["lastError"]:
                    return prometheus, state
            time.sleep(0.1)
        self.fail(f"no scrape within {PATIENCE} s")

    def test_with_all_that_the_comments_say_it_is_scraped(self):
        prometheus, state = self.scraped_with(READER, "authorization", "scheme", "tls_config")
        self.assertEqual((state["health"], state["lastError"]), ("up", ""))
        self.assertEqual(state["labels"]["job"], "coppice")
        self.assertEqual(prometheus.query("sum(coppice_sandboxes)"), [({}, 0.0)])

    def test_a_token_that_is_none_is_a_401(self):
        _, state = self.scraped_with("stranger-0123456789abcdef", "authorization", "scheme", "tls_config")
        self.assertEqual(state["health"], "down")
        self.assertIn("401", state["lastError"])

    def test_without_the_ca_the_certificate_is_refused(self):
        _, state = self.scraped_with(READER, "authorization", "scheme")
        self.assertEqual(state["health"], "down")
        self.assertIn("certificate", state["lastError"])


if __name__ == "__main__":
    if shutil.which("prometheus") is None:
        print("SKIPPED: prometheus is not installed (packages.txt)")
        sys.exit(77)
    unittest.main()
