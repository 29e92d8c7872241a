"""schemathesis sends the real coppiced what its description allows, and what it forbids, and checks each answer."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from coppiced import JOURNAL, Coppiced  # noqa: E402
from guest_agent import NAMESPACES_WORK, agent_in  # noqa: E402

import openapi_spec_validator  # noqa: E402

PATIENCE = 60  # seconds

# A busy host misses deadlines: 503 is an answer, too. What is deleted is not what the other routes are tried with. Names that
# earlier answers held are not used again: those sandboxes have no agent, and it would be chance whether one that has is asked.
CONFIG = """
continue-on-failure = true
hooks = "{hooks}"
request-timeout = {patience}

[generation]
max-examples = 20
deterministic = true

[phases.coverage]
extra-data-sources.responses = false

[phases.fuzzing]
extra-data-sources.responses = false

[phases.stateful]
enabled = false

[checks]
enabled = false
not_a_server_error = {{enabled = true, expected-statuses = ["2xx", "4xx", 503]}}
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_headers_conformance.enabled = true
response_schema_conformance.enabled = true
unsupported_method.enabled = true
allow_header_conformance.enabled = true
negative_data_rejection.enabled = true

[dictionaries]
tags.values = ["base", "b1"]
ids.values = {ids}
doomed_tags.values = {doomed_tags}
doomed_ids.values = {doomed_ids}

[parameters]
"path.tag" = {{dictionary = "tags", probability = 0.7}}
"path.id" = {{dictionary = "ids", probability = 0.7}}
"body.snapshot_tag" = {{dictionary = "tags", probability = 0.7}}

[[operations]]
include-method = "DELETE"

[operations.parameters]
"path.tag" = {{dictionary = "doomed_tags", probability = 0.7}}
"path.id" = {{dictionary = "doomed_ids", probability = 0.7}}
"""


class Openapi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Coppiced()
        cls.addClassCleanup(cls.daemon.stop)
        cls.create("/v1/snapshots", {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 16, "boot_time_ms": 100,
                                     "boot_args": "journal.pages=512 journal.rest_us=10000"})
        made = cls.create("/v1/sandboxes", {"snapshot_tag": "base", "n": 5, "per_child_netns": NAMESPACES_WORK})
        cls.ids = [each["id"] for each in made]
        if NAMESPACES_WORK:
            for sandbox in made[:2]:  # those that are asked by name
                cls.enterClassContext(agent_in(sandbox["netns"], "agent"))
        cls.doomed_tags = [f"doomed-{number}" for number in range(5)]
        for tag in ["b1", *cls.doomed_tags]:
            cls.create(f"/v1/sandboxes/{cls.ids[0]}/branch", {"tag": tag, "mode": "full"})

    @classmethod
    def send(cls, method, path, body=None):
        """Status, headers and text of the answer."""
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(cls.daemon.url + path, data, method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, refused.read().decode()

    @classmethod
    def create(cls, path, body):
        status, _, text = cls.send("POST", path, body)
        assert status == 201, text
        return json.loads(text)

    def test_every_answer_is_one_that_is_described(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder, "schemathesis.toml")
            config.write_text(CONFIG.format(
                hooks=HERE / "openapi_hooks.py", patience=PATIENCE, ids=json.dumps(self.ids[:2]),
                doomed_ids=json.dumps(self.ids[2:]), doomed_tags=json.dumps(self.doomed_tags)))
            # The event stream never ends: it has a test below.
            command = [pathlib.Path(sys.executable).parent / "st", "--config-file", config, "run", "--no-color", "--warnings", "off",
                       "--exclude-path", "/v1/events", self.daemon.url + "/v1/openapi.json"]
            outcome = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                     env=os.environ | {"PYTHONPATH": str(HERE.parent / "support")})
        print(outcome.stdout)
        self.assertEqual(outcome.returncode, 0)
        self.assertIsNone(self.daemon.process.poll(), "coppiced lives on")
        need_agent = {("POST", f"/v1/sandboxes/{{id}}/{what}", "200") for what in ("exec", "eval", "ping")}
        self.assertEqual(self.successes_described() - self.answers_given(),
                         {("GET", "/v1/events", "200")} | (set() if NAMESPACES_WORK else need_agent),
                         "these were never reached: the test is weaker than it seems")

    def successes_described(self):
        """Method, route and status of the answers of success."""
        paths = json.loads(self.send("GET", "/v1/openapi.json")[2])["paths"]
        return {(method.upper(), path, status) for path, methods in paths.items() for method, each in methods.items()
                for status in each["responses"] if status.startswith("2")}

    def answers_given(self):
        """The same of all that coppiced has answered, by its metrics."""
        counted = re.compile(r'coppice_http_requests_total\{method="(\w+)",route="([^"]+)",status="(\d+)"\}')
        return set(counted.findall(self.send("GET", "/metrics")[2]))

    def test_the_description_is_legal_openapi(self):
        openapi_spec_validator.validate(json.loads(self.send("GET", "/v1/openapi.json")[2]))

    def test_the_event_stream_is_as_described(self):
        with urllib.request.urlopen(self.daemon.url + "/v1/events", timeout=PATIENCE) as stream:
            self.assertEqual(stream.headers["Content-Type"], "text/event-stream")
            self.assertTrue(stream.headers["X-Request-Id"])
            self.assertTrue(stream.readline().startswith(b":"))

    def test_what_has_no_route_is_404_and_another_method_is_405_with_those_there_are(self):
        for method, path, status, allow in [("GET", "/", 404, None), ("GET", "/v1", 404, None),
                                            ("POST", "/v1/snapshots/a/b/c", 404, None),
                                            ("PATCH", "/v1/snapshots", 405, "GET, POST"),
                                            ("OPTIONS", "/v1/sandboxes/x", 405, "GET, DELETE"),
                                            ("HEAD", "/healthz", 405, "GET")]:
            with self.subTest(method=method, path=path):
                answered, headers, _ = self.send(method, path)
                self.assertEqual((answered, headers["Allow"]), (status, allow))


if __name__ == "__main__":
    if not pathlib.Path("/dev/kvm").exists():
        print("SKIPPED: no /dev/kvm")
        sys.exit(77)
    unittest.main(verbosity=2)
