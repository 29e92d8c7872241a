"""deploy/prometheus: promtool accepts it, every alert has a case in which it fires, all metrics that it uses exist."""
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
CASES = [HERE / "rules_test.yml", HERE / "rules_of_days_test.yml"]
ALERTS = (PROMETHEUS / "alerts.rules.yml").read_text()
RECORDED = (PROMETHEUS / "recording.rules.yml").read_text()


def promtool(*arguments) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"promtool {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")


def alerts() -> dict[str, str]:
    """The text of each alert by its name."""
    parts = re.split(r"^ +- alert: (\w+)$", ALERTS, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


class Rules(unittest.TestCase):
    def test_promtool_accepts_configuration_and_rules(self):
        promtool("check", "config", PROMETHEUS / "prometheus.yml")  # and the rule files that it names

    def test_alerts_fire_when_they_shall_and_only_then(self):
        promtool("test", "rules", *CASES)

    def test_every_alert_has_a_case_in_which_it_fires(self):
        fired = set(re.findall(r'alertname="(\w+)"[^}]*}\', value', "".join(case.read_text() for case in CASES)))
        self.assertEqual(fired, set(alerts()))

    def test_every_alert_says_what_happened_and_what_to_do(self):
        for name, text in alerts().items():
            with self.subTest(name):
                self.assertRegex(text, r"labels: {severity: (page|ticket)}")
                for part in ("summary", "description", "runbook"):
                    self.assertRegex(text, rf" {part}: \S")

    def test_only_metrics_that_exist_are_used(self):
        known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
        expressions = re.sub(r"instance\w*:\w+:\w+", "", ALERTS + RECORDED)
        used = re.findall(r"\b(?:coppice|process)_\w+(?=[{\[ )\n])", expressions)
        self.assertGreater(len(set(used)), 10)
        groups = set(re.findall(r"- name: (\w+)", ALERTS + RECORDED))
        for name in set(used) - groups:
            self.assertIn(re.sub(r"_(bucket|sum|count)$", "", name), known)

    def test_only_recorded_series_are_used(self):
        recorded = set(re.findall(r"- record: (\S+)", RECORDED))
        for name in re.findall(r"instance\w*:\w+:\w+", ALERTS):
            self.assertIn(name, recorded)


if __name__ == "__main__":
    if shutil.which("promtool") is None:
        print("SKIPPED: promtool is not installed (packages.txt: prometheus)")
        sys.exit(77)
    unittest.main()
