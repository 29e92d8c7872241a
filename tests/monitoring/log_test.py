"""coppiced's log: one line a branch, with its breakdown, for people and for programs."""
import json
import pathlib
import sys
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from coppiced import JOURNAL, Coppiced  # noqa: E402

PARTS_OF_THE_PAUSE = ("pause_us", "snapshot_us", "rearm_us", "resume_us")


def log_of_two_branches(*options: str) -> list[str]:
    """What a daemon logs that makes the branch "b1", can't make "b2", and refuses to make "b1" again."""
    daemon = Coppiced(*options, left_over="b2")

    def post(path, body, request_id="setup"):
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        request = urllib.request.Request(daemon.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    try:
        post("/v1/snapshots", {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 64, "boot_time_ms": 200})
        sandbox = post("/v1/sandboxes", {"snapshot_tag": "base"})[0]["id"]
        for attempt, tag in (("first", "b1"), ("second", "b2"), ("third", "b1")):
            try:  # in the mode whose snapshot has no short deadline to miss
                post(f"/v1/sandboxes/{sandbox}/branch", {"tag": tag, "mode": "full"}, attempt)
            except urllib.error.HTTPError as failure:
                assert failure.code == 409, failure
    finally:
        log = daemon.stop()
    return log.splitlines()


class Log(unittest.TestCase):
    def test_every_line_of_a_json_log_is_an_object(self):
        lines = [json.loads(line) for line in log_of_two_branches("--log-format", "json")]
        for line in lines:
            self.assertEqual(list(line)[:4], ["time", "level", "program", "message"])
        ready, failed = [line for line in lines if line.get("event") == "branch"]
        self.assertEqual((ready["tag"], ready["mode"], ready["outcome"], ready["reason"]), ("b1", "full", "ready", ""))
        self.assertGreater(ready["pause_total_us"], 0)
        self.assertLessEqual(sum(ready[part] for part in PARTS_OF_THE_PAUSE), ready["pause_total_us"])
        self.assertEqual((failed["tag"], failed["level"], failed["outcome"], failed["step"]),
                         ("b2", "warning", "failed", "reserve"))
        self.assertIn("can't be read", failed["reason"])
        self.assertEqual((ready["request_id"], failed["request_id"]), ("first", "second"))
        answers = [line for line in lines if line.get("event") == "request" and line["request_id"] in ("first", "second", "third")]
        self.assertEqual([(line["request_id"], line["method"], line["status"]) for line in answers],
                         [("first", "POST", 201), ("second", "POST", 409), ("third", "POST", 409)])

    def test_a_human_log_has_the_same_lines(self):
        log = log_of_two_branches()
        branches = [line for line in log if " branch b1 of " in line or " branch b2 of " in line]
        self.assertEqual(len(branches), 2)
        self.assertRegex(branches[0], r"full: ready; pause \d+ us \(pause \d+, snapshot \d+, rearm \d+, resume \d+\)")
        self.assertIn("can't be read", branches[1])
        self.assertTrue(branches[0].endswith("; request first"), branches[0])
        self.assertTrue(branches[1].endswith("; request second"), branches[1])
        self.assertTrue([line for line in log if "/branch: 201 after " in line and line.endswith("; request first")], log)


if __name__ == "__main__":
    unittest.main()
