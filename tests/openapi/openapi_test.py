"""schemathesis sends the real coppiced what its description allows, and what it forbids, and checks each answer."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from coppiced import JOURNAL, Coppiced  # noqa: E402
from guest_agent import NAMESPACES_WORK, agent_in  # noqa: E402

import openapi_spec_validator  # noqa: E402

PATIENCE = 60  # seconds

# Of each answer by itself, whatever else a run looks at.
CHECKS = """
[checks]
enabled = false
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_headers_conformance.enabled = true
response_schema_conformance.enabled = true
negative_data_rejection.enabled = true
"""

# A busy host misses deadlines: 503 is an answer, too (it is described, and each route has to succeed as well). What is deleted
# is not what the other routes are tried with. Names that earlier answers held are not used again: those sandboxes have no agent,
# and it would be chance whether one that has is asked.
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

""" + CHECKS + """
not_a_server_error = {{enabled = true, expected-statuses = ["2xx", "4xx", 503]}}
unsupported_method.enabled = true
allow_header_conformance.enabled = true

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


# Calls that follow one another, with what the earlier ones answered.
STATEFUL_CONFIG = """
continue-on-failure = true
hooks = "{hooks}"
request-timeout = {patience}

[generation]
max-examples = 5
deterministic = true

[checks]
enabled = false
not_a_server_error = {{enabled = true, expected-statuses = ["2xx", "4xx", 503]}}
status_code_conformance.enabled = true
response_schema_conformance.enabled = true
use_after_free.enabled = true
ensure_resource_availability.enabled = true

[dictionaries]
tags.values = ["base"]

[parameters]
"body.snapshot_tag" = {{dictionary = "tags", probability = 0.7}}
"""

GUARDED_CONFIG = """
continue-on-failure = true
request-timeout = {patience}

[generation]
max-examples = 5
deterministic = true

[phases.stateful]
enabled = false

""" + CHECKS + """
not_a_server_error.enabled = true
unsupported_method.enabled = {unsupported_method}
"""


class OpenapiTest(unittest.TestCase):
    """With a coppiced, `daemon`."""

    token = None  # what send() sends

    @classmethod
    def send(cls, method, path, body=None, headers=None):
        """Status, headers and text of the answer."""
        data = None if body is None else json.dumps(body).encode()
        by_token = {} if cls.token is None else {"Authorization": f"Bearer {cls.token}"}
        try:
            request = urllib.request.Request(cls.daemon.url + path, data, by_token | (headers or {}), method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, refused.read().decode()

    def run_schemathesis(self, config, *words):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "schemathesis.toml")
            file.write_text(config)
            command = [pathlib.Path(sys.executable).parent / "st", "--config-file", file, "run", "--no-color", "--warnings",
                       "off", *words]
            outcome = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                     env=os.environ | {"PYTHONPATH": str(HERE.parent / "support")})
        print(outcome.stdout)
        self.assertEqual(outcome.returncode, 0)
        self.assertIsNone(self.daemon.process.poll(), "coppiced lives on")

    def described(self):
        """The description's paths."""
        return json.loads(self.send("GET", "/v1/openapi.json")[2])["paths"]

    def answers_given(self):
        """Method, route and status of all that coppiced has answered, by its metrics."""
        counted = re.compile(r'coppice_http_requests_total\{method="(\w+)",route="([^"]+)",status="(\d+)"\}')
        return set(counted.findall(self.send("GET", "/metrics")[2]))


    @classmethod
    def create(cls, path, body):
        deadline = time.monotonic() + PATIENCE
        status = 503
        while status == 503 and time.monotonic() < deadline:  # a busy host missed a deadline
            status, _, text = cls.send("POST", path, body)
        assert status == 201, text
        return json.loads(text)

    @classmethod
    def create_base(cls):
        cls.create("/v1/snapshots", {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 16, "boot_time_ms": 100,
                                     "boot_args": "journal.pages=512 journal.rest_us=10000"})


class Openapi(OpenapiTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Coppiced()
        cls.addClassCleanup(cls.daemon.stop)
        cls.create_base()
        made = cls.create("/v1/sandboxes", {"snapshot_tag": "base", "n": 5, "per_child_netns": NAMESPACES_WORK})
        cls.ids = [each["id"] for each in made]
        if NAMESPACES_WORK:
            for sandbox in made[:2]:  # those that are asked by name
                cls.enterClassContext(agent_in(sandbox["netns"], "agent"))
        cls.doomed_tags = [f"doomed-{number}" for number in range(5)]
        for tag in ["b1", *cls.doomed_tags]:
            cls.create(f"/v1/sandboxes/{cls.ids[0]}/branch", {"tag": tag, "mode": "full"})

    def test_every_answer_is_one_that_is_described(self):
        config = CONFIG.format(hooks=HERE / "openapi_hooks.py", patience=PATIENCE, ids=json.dumps(self.ids[:2]),
                               doomed_ids=json.dumps(self.ids[2:]), doomed_tags=json.dumps(self.doomed_tags))
        # The event stream never ends: it has a test below.
        self.run_schemathesis(config, "--exclude-path", "/v1/events", self.daemon.url + "/v1/openapi.json")
        need_agent = {("POST", f"/v1/sandboxes/{{id}}/{what}", "200") for what in ("exec", "eval", "ping")}
        self.assertEqual(self.successes_described() - self.answers_given(),
                         {("GET", "/v1/events", "200")} | (set() if NAMESPACES_WORK else need_agent),
                         "these were never reached: the test is weaker than it seems")

    def successes_described(self):
        """Method, route and status of the answers of success."""
        return {(method.upper(), path, status) for path, methods in self.described().items() for method, each in methods.items()
                for status in each["responses"] if status.startswith("2")}

    def test_the_description_is_legal_openapi(self):
        openapi_spec_validator.validate(json.loads(self.send("GET", "/v1/openapi.json")[2]))

    def test_the_event_stream_is_as_described(self):
        with urllib.request.urlopen(self.daemon.url + "/v1/events", timeout=PATIENCE) as stream:
            self.assertEqual(stream.headers["Content-Type"], "text/event-stream")
            self.assertTrue(stream.headers["X-Request-Id"])
            self.assertTrue(stream.readline().startswith(b":"))
        for path, headers in (("/v1/events", {"Last-Event-ID": "x"}), ("/v1/events", {"Last-Event-ID": "1" * 21}),
                              ("/v1/events?x=true", {})):
            self.assertEqual(self.send("GET", path, headers=headers)[0], 400, (path, headers))
        self.assertEqual(self.send("POST", "/v1/events", {})[0], 405)

    def test_what_has_no_route_is_404_and_another_method_is_405_with_those_there_are(self):
        for method, path, status, allow in [("GET", "/", 404, None), ("GET", "/v1", 404, None),
                                            ("POST", "/v1/snapshots/a/b/c", 404, None),
                                            ("PATCH", "/v1/snapshots", 405, "GET, POST"),
                                            ("OPTIONS", "/v1/sandboxes/x", 405, "GET, DELETE"),
                                            ("HEAD", "/healthz", 405, "GET")]:
            with self.subTest(method=method, path=path):
                answered, headers, _ = self.send(method, path)
                self.assertEqual((answered, headers["Allow"]), (status, allow))


class StatefulOpenapi(OpenapiTest):
    """A coppiced of its own: the calls delete what the others are tried with."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Coppiced()
        cls.addClassCleanup(cls.daemon.stop)
        cls.create_base()

    def test_what_was_made_is_there_and_what_was_deleted_is_gone(self):
        self.run_schemathesis(STATEFUL_CONFIG.format(hooks=HERE / "openapi_hooks.py", patience=PATIENCE), "--phases", "stateful",
                              "--exclude-path", "/v1/events", self.daemon.url + "/v1/openapi.json")
        self.assertIn("204", {status for method, _, status in self.answers_given() if method == "DELETE"}, "nothing was deleted")


class GuardedOpenapi(OpenapiTest):
    """A coppiced with tokens, and without guests: nothing can be made by who is asked of here."""

    token = "reader-token-0123456789"

    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", delete=False) as file:  # only its owner may read it
            file.write(f"watch read {cls.token}\nops write writer-token-0123456789\n")
        cls.addClassCleanup(os.unlink, file.name)
        cls.daemon = Coppiced("--token-file", file.name)
        cls.addClassCleanup(cls.daemon.stop)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.description = pathlib.Path(folder.name, "openapi.json")
        cls.description.write_text(cls.send("GET", "/v1/openapi.json")[2])

    def routes(self, *, changing):
        """Method, route and description of those that need a token."""
        return [(method.upper(), path, each) for path, methods in self.described().items() for method, each in methods.items()
                if "security" in each and (method != "get") == changing]

    def answered(self, method, path):
        return {status for known_method, known_path, status in self.answers_given() if (known_method, known_path) == (method, path)}

    def test_a_token_that_may_read_gets_403_of_all_that_changes(self):
        for method, path, each in self.routes(changing=True):
            self.assertLessEqual({"401", "403"}, set(each["responses"]), (method, path))
        self.run_schemathesis(GUARDED_CONFIG.format(patience=PATIENCE, unsupported_method="true"), "--exclude-path", "/v1/events",
                              "--header", f"Authorization: Bearer {self.token}", "--url", self.daemon.url, self.description)
        for method, path, _ in self.routes(changing=True):
            self.assertIn("403", self.answered(method, path), (method, path))
            self.assertLessEqual(self.answered(method, path), {"401", "403"}, (method, path))

    def test_who_has_no_token_gets_401_of_all_but_health_and_version(self):
        self.run_schemathesis(GUARDED_CONFIG.format(patience=PATIENCE, unsupported_method="false"),  # not told either: 401
                              "--url", self.daemon.url, self.description)
        for method, path, each in self.routes(changing=True) + self.routes(changing=False):
            self.assertIn("401", each["responses"], (method, path))
            self.assertIn("401", self.answered(method, path), (method, path))
        for path in ("/healthz", "/version"):
            self.assertNotIn("401", self.answered("GET", path))

    def test_a_refusal_names_what_is_needed(self):
        for token, status, told in ((None, 401, "Authorization: Bearer"), ("x" * 20, 401, "Authorization: Bearer"),
                                    (self.token, 403, "watch")):
            headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
            answered, got, text = self.send("POST", "/v1/snapshots", {}, headers)
            self.assertEqual((answered, got["WWW-Authenticate"] is not None), (status, status == 401))
            self.assertIn(told, json.loads(text)["error"])


if __name__ == "__main__":
    if not pathlib.Path("/dev/kvm").exists():
        print("SKIPPED: no /dev/kvm")
        sys.exit(77)
    unittest.main(verbosity=2)
