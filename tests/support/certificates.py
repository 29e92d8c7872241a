"""Keys and certificates of a test's own, made by openssl(1): a CA, a server for 127.0.0.1, and a client."""
import pathlib
import subprocess

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Certificates:
    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
        self._sign("server", "subjectAltName=IP:127.0.0.1")
        self._sign("client", "extendedKeyUsage=clientAuth")

    def file(self, name: str) -> str:
        """E.g. of "ca.crt", "client.key"."""
        return str(self.folder / name)

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, cwd=self.folder, stderr=subprocess.DEVNULL)

    def _sign(self, name: str, extension: str) -> None:
        self._openssl("req", *NEW_KEY, "-subj", f"/CN={name}", "-addext", extension, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl("x509", "-req", "-days", "2", "-copy_extensions", "copy", "-CAcreateserial", "-CA", "ca.crt", "-CAkey", "ca.key",
                      "-in", f"{name}.csr", "-out", f"{name}.crt")
