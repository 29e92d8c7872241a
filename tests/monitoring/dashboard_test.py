"""Debian's Prometheus watches a coppiced under load: every panel of the dashboard and every recording rule has data.

With COPPICE_DASHBOARD_ANSWERS=FILE, what the panels showed over COPPICE_DASHBOARD_SECONDS (default 120) of that load is
written there, for tools/draw_dashboard.py.
"""
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "support"))
from coppiced import JOURNAL, Coppiced  # noqa: E402
from load import Load, misbehaving_vmm  # noqa: E402
from prometheus import Prometheus, configuration_for  # noqa: E402

RULES = [ROOT / "deploy" / "prometheus" / name for name in ("recording.rules.yml", "alerts.rules.yml")]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "coppice.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PATIENCE = 60  # seconds
# What the load is known to have done once these have values: branches in each mode, and each kind of trouble.
TROUBLE = {
    "ready in each mode": 'count(coppice_branches_total{outcome="ready"} > 0) == 3',
    "a failed branch": 'coppice_branch_failures_total{reason="already_exists"} > 0',
    "a missed deadline": 'coppice_branch_deadline_misses_total{step="snapshot"} > 0',
    "a resume that failed": 'coppice_branch_step_failures_total{step="resume"} > 0',
    "the alert of a VMM that died": 'ALERTS{alertname="CoppiceVmmsDie", alertstate="firing"}',
}
VARIABLES = {"$__rate_interval": "15s", "$instance": ".+"}


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def expected_queries() -> dict[str, str]:
    """Expression by the name under which its absence is reported."""
    queries = {f"panel '{panel['title']}', query {target['refId']}": filled_in(target["expr"])
               for panel in PANELS for target in panel["targets"]}
    for name in re.findall(r"- record: (\S+)", RULES[0].read_text()):
        queries[f"recording rule {name}"] = name
    return queries | TROUBLE


def missing_after_waiting(queries: dict[str, str], prometheus: Prometheus) -> dict[str, str]:
    """Those that never had an answer until PATIENCE was over; returns as soon as there are none."""
    deadline = time.monotonic() + PATIENCE
    while queries and time.monotonic() < deadline:
        queries = {name: query for name, query in queries.items() if not prometheus.query(query)}
        time.sleep(0.5)  # until the next look
    return queries


class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):  # what was started is ended, also if the rest fails
        folder = tempfile.TemporaryDirectory(prefix="coppice-dashboard-")
        cls.addClassCleanup(folder.cleanup)
        daemon = Coppiced("--vmm", str(misbehaving_vmm(pathlib.Path(folder.name))))
        cls.addClassCleanup(daemon.stop)
        cls.started = time.time()
        cls.prometheus = Prometheus(configuration_for(daemon.url.removeprefix("http://"), "coppice", RULES))
        cls.addClassCleanup(cls.prometheus.stop)
        missing_after_waiting({"the first scrape": "up == 1"}, cls.prometheus)  # or it misses what happens first
        cls.load = Load(daemon.url, JOURNAL)
        cls.load.start()
        cls.addClassCleanup(cls.load.stop)

    def test_every_panel_and_every_recording_rule_has_data(self):
        queries = expected_queries()
        self.assertGreater(len(queries), 40)
        self.assertEqual(missing_after_waiting(queries, self.prometheus), {})
        self.assertEqual(self.load.unexpected, [])
        self.save_answers()

    def test_no_rule_fails_to_evaluate(self):
        self.prometheus.query("up")
        for group in self.prometheus.get("rules")["groups"]:
            for rule in group["rules"]:
                self.assertFalse(rule.get("lastError"), rule)

    def test_every_panel_has_a_unit_and_says_what_it_shows(self):
        for panel in PANELS:
            with self.subTest(panel["title"]):
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"])
                self.assertTrue(panel["description"])

    def save_answers(self):
        if not (path := os.environ.get("COPPICE_DASHBOARD_ANSWERS")):
            return
        end = self.started + float(os.environ.get("COPPICE_DASHBOARD_SECONDS", "120"))
        time.sleep(max(0.0, end - time.time()))

        def ask(target):
            expression = filled_in(target["expr"])
            for series in self.prometheus.query_range(expression, self.started, end, 1):
                yield {"legend": target["legendFormat"], **series}

        answers = [{"title": panel["title"], "series": [each for target in panel["targets"] for each in ask(target)]}
                   for panel in PANELS]
        pathlib.Path(path).write_text(json.dumps(answers))


if __name__ == "__main__":
    if shutil.which("prometheus") is None:
        print("SKIPPED: prometheus is not installed (see packages.txt)")
        sys.exit(77)
    unittest.main()
