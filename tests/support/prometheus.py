"""A Prometheus of a test's own: the real server, on a temporary folder and a free port of loopback."""
import json
import math
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request

CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: {rules}
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: ["{target}"]}}]
"""


def configuration_for(target: str, job: str, rules: list[pathlib.Path]) -> str:
    """To scrape `target` (host:port) each second, under the name `job`."""
    return CONFIGURATION.format(rules=json.dumps([str(each) for each in rules]), job=job, target=target)


class Prometheus:
    """Started by the constructor, with the text of its configuration. stop() ends it."""

    def __init__(self, text: str):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="prometheus-"))
        configuration = self.folder / "prometheus.yml"
        configuration.write_text(text)
        command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={self.folder / 'data'}",
                   "--web.listen-address=127.0.0.1:0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.url = ""
        log = []
        for line in self.process.stderr:
            log.append(line)
            if found := re.search(r'"Listening on" address=(\S+)', line):
                self.url = f"http://{found.group(1)}"
            if "Server is ready" in line:
                break
        self.reader = threading.Thread(target=log.extend, args=(self.process.stderr,))  # a full pipe would block it
        self.reader.start()
        if not self.url or self.process.poll() is not None:
            self.stop()
            raise RuntimeError(f"prometheus did not start: {''.join(log)}")

    def get(self, path: str, **parameters):
        """The `data` of an answer of its API; raises if it is an error."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict, float]]:
        """What an expression gives now: labels and value of each series that has one."""
        found = [(one["metric"], float(one["value"][1])) for one in self.get("query", query=expression)["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict]:
        return self.get("query_range", query=expression, start=start, end=end, step=step)["result"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.reader.join()
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)
