"""forkd's own Python SDK, unchanged, drives coppiced in everything that needs no agent inside the guest."""
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from coppiced import JOURNAL, Coppiced  # noqa: E402
from guest_agent import NAMESPACES_WORK, agent_in  # noqa: E402

from forkd import Controller, ControllerError  # noqa: E402

PATIENCE = 60  # seconds


class ForkdSdk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Coppiced()
        cls.sdk = Controller(cls.daemon.url, timeout=PATIENCE)
        body = {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 64, "boot_time_ms": 200}
        cls.sdk._request("POST", "/v1/snapshots", body)  # the SDK has no method for it

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()

    def setUp(self):
        self.parent = self.sdk.spawn_sandboxes("base")[0]["id"]

    def tearDown(self):
        for sandbox in self.sdk.list_sandboxes():
            self.sdk.kill_sandbox(sandbox["id"])
        for snapshot in self.sdk.list_snapshots():
            if snapshot["tag"] != "base":
                self.sdk.delete_snapshot(snapshot["tag"])

    def refused(self, status, call, *arguments, **options):
        """The message of the error by which the SDK reports `status`."""
        with self.assertRaises(ControllerError) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.status, status, caught.exception)
        self.assertIsInstance(caught.exception.body, dict)
        return caught.exception.body["error"]

    def branch(self, sandbox, **options):
        """A branch; again if a deadline of it was missed, as a busy host may."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.sdk.branch_sandbox(sandbox, **options)
            except ControllerError as failure:
                if failure.status != 503 or time.monotonic() > deadline:
                    raise

    def info(self, tag):
        return self.sdk._request("GET", f"/v1/snapshots/{tag}/info")

    def until_written(self, tag):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            status = next(each["status"] for each in self.sdk.list_snapshots() if each["tag"] == tag)
            if status != "writing":
                return status
        return "still writing"

    def test_a_snapshot_has_forkds_fields(self):
        base = next(each for each in self.sdk.list_snapshots() if each["tag"] == "base")
        self.assertEqual(base["status"], "ready")
        self.assertTrue(base["bootable"])
        self.assertTrue(pathlib.Path(base["dir"], "memory.bin").exists())
        self.assertGreater(base["created_at_unix"], 1_600_000_000)

    def test_sandboxes_have_forkds_fields(self):
        made = self.sdk.spawn_sandboxes("base", n=2, live_fork=True)
        self.assertEqual(len(made), 2)
        self.assertEqual({each["id"] for each in made} | {self.parent},
                         {each["id"] for each in self.sdk.list_sandboxes()})
        one = self.sdk.get_sandbox(made[0]["id"])
        self.assertEqual(one["snapshot_tag"], "base")
        self.assertGreater(one["pid"], 0)
        self.assertEqual((one["netns"], one["guest_addr"], one["memory_limit_mib"]), (None, None, None))
        self.assertEqual((one["has_branched"], one["branch_count"]), (False, 0))

    def test_a_branch_in_each_mode_is_ready_and_starts_grandchildren(self):
        for number, options in enumerate([{"mode": "live"}, {"mode": "full"}, {"mode": "diff"}, {"diff": True}, {}]):
            with self.subTest(options):
                tag = f"b{number}"
                branch = self.branch(self.parent, tag=tag, **options)
                self.assertEqual((branch["tag"], branch["status"]), (tag, "ready"))
                self.assertEqual(branch["branched_from"], self.parent)
                self.assertIsInstance(branch["pause_ms"], int)
                self.assertGreater(branch["pause_ms"], 0)
                self.assertEqual(len(self.sdk.spawn_sandboxes(tag, n=2)), 2)
        self.assertTrue(self.sdk.get_sandbox(self.parent)["has_branched"])
        self.assertGreaterEqual(self.sdk.get_sandbox(self.parent)["branch_count"], 5)

    def test_a_branch_may_name_its_parent_as_forkds_command_line_does(self):
        body = {"tag": "chained", "mode": "diff", "parent_tag": "base"}
        made = self.sdk._request("POST", f"/v1/sandboxes/{self.parent}/branch", body)
        self.assertEqual(made["parent_tag"], "base")
        self.assertIn("base", self.refused(400, self.sdk._request, "POST", f"/v1/sandboxes/{self.parent}/branch",
                                           {"tag": "other", "mode": "diff", "parent_tag": "another"}))

    def test_a_branch_without_a_tag_gets_one(self):
        self.assertIn(self.parent, self.branch(self.parent)["tag"])

    def test_a_branch_that_is_not_waited_for_becomes_ready(self):
        branch = self.branch(self.parent, tag="later", mode="live", wait=False)
        self.assertEqual(branch["status"], "writing")
        self.assertEqual(self.until_written("later"), "ready")

    def test_info_tells_the_lineage(self):
        self.branch(self.parent, tag="b", mode="live")
        info = self.info("b")
        self.assertEqual((info["parent_tag"], info["ancestors"], info["dependents"]), ("base", ["base"], []))
        self.assertEqual((info["chain_depth"], info["memory_logical_bytes"]), (0, 64 * 2**20))
        self.assertEqual(self.info("base")["dependents"], ["b"])

    def test_a_snapshot_is_deleted_alone_or_with_its_descendants(self):
        self.branch(self.parent, tag="a")
        child = self.sdk.spawn_sandboxes("a")[0]["id"]
        self.branch(child, tag="a-a")
        self.assertIn(child, self.refused(409, self.sdk.delete_snapshot, "a?cascade=true"))
        self.sdk.kill_sandbox(child)
        self.refused(400, self.sdk.delete_snapshot, "a?cascade=true&force=true")
        grandchild = self.sdk.spawn_sandboxes("a-a")[0]["id"]
        self.branch(grandchild, tag="a-a-a")
        self.sdk.kill_sandbox(grandchild)
        self.sdk.delete_snapshot("a-a?force=true")
        self.assertEqual(len(self.sdk.spawn_sandboxes("a-a-a")), 1, "no snapshot needs its parent")
        self.branch(self.parent, tag="c")
        child = self.sdk.spawn_sandboxes("c")[0]["id"]
        self.branch(child, tag="c-c")
        self.sdk.kill_sandbox(child)
        self.sdk.delete_snapshot("c?cascade=true")
        self.assertEqual({each["tag"] for each in self.sdk.list_snapshots()}, {"base", "a", "a-a-a"})

    def test_what_is_not_there_is_404(self):
        self.assertIn("none", self.refused(404, self.sdk.spawn_sandboxes, "none"))
        for call in (self.sdk.get_sandbox, self.sdk.kill_sandbox, self.sdk.branch_sandbox, self.sdk.ping_sandbox):
            self.assertIn("sb-none", self.refused(404, call, "sb-none"))
        self.refused(404, self.sdk.delete_snapshot, "none")

    def test_what_conflicts_is_409(self):
        self.branch(self.parent, tag="taken")
        self.assertIn("taken", self.refused(409, self.sdk.branch_sandbox, self.parent, tag="taken"))
        self.assertIn(self.parent, self.refused(409, self.sdk.delete_snapshot, "base"))

    def test_what_can_never_succeed_is_400(self):
        self.refused(400, self.sdk.branch_sandbox, self.parent, tag="../x")
        self.refused(400, self.sdk.branch_sandbox, self.parent, mode="fast")
        self.refused(400, self.sdk.spawn_sandboxes, "base", n=0)

    def test_what_this_daemon_does_not_do_is_refused_by_name(self):
        self.assertIn("--cgroup", self.refused(409, self.sdk.spawn_sandboxes, "base", memory_limit_mib=64))
        self.assertIn("measure_diff", self.refused(400, self.sdk.branch_sandbox, self.parent, measure_diff=True))

    def test_hints_are_taken(self):
        (child,) = self.sdk.spawn_sandboxes("base", n=1, live_fork=True, prewarm=True, hugepages=True)
        self.branch(child["id"], mode="live")
        self.sdk.kill_sandbox(child["id"])

    def test_what_needs_an_agent_is_409_with_the_reason(self):
        for message in (self.refused(409, self.sdk.exec_command, self.parent, ["true"]),
                        self.refused(409, self.sdk.eval_code, self.parent, "1 + 1"),
                        self.refused(409, self.sdk.ping_sandbox, self.parent)):
            self.assertIn("no guest address", message)
            self.assertIn(self.parent, message)

    @unittest.skipUnless(NAMESPACES_WORK, "no network namespace can be made here")
    def test_exec_eval_and_ping_reach_the_agent_of_the_right_sandbox(self):
        children = self.sdk.spawn_sandboxes("base", n=2, per_child_netns=True)
        with contextlib.ExitStack() as agents:
            for child in children:
                self.assertEqual(child["guest_addr"], "10.42.0.2:8888")
                agents.enter_context(agent_in(child["netns"], child["id"]))
            for child in children:
                ran = self.sdk.exec_command(child["id"], ["echo", "hi"])
                self.assertEqual(ran, {"stdout": f"{child['id']}: echo hi\n", "stderr": "", "exit_code": 0})
                self.assertEqual(self.sdk.eval_code(child["id"], "(1,  2)")["result"], "(1, 2)")
                self.assertEqual(self.sdk.ping_sandbox(child["id"])["pong"], True)
        self.assertIn("10.42.0.2:8888", self.refused(503, self.sdk.ping_sandbox, children[0]["id"]))

    def test_a_branch_shows_in_the_event_stream(self):
        with urllib.request.urlopen(self.daemon.url + "/v1/events", timeout=PATIENCE) as stream:
            self.branch(self.parent, tag="told", mode="live")
            self.sdk.kill_sandbox(self.parent)
            seen = []
            while "sandbox.deleted" not in seen:
                line = stream.readline().decode()
                if line.startswith("event: "):
                    seen.append(line.removeprefix("event: ").strip())
        self.assertEqual(seen[-4:], ["branch.started", "branch.resumed", "branch.ready", "sandbox.deleted"])

    def test_health_and_version_have_forkds_fields(self):
        with urllib.request.urlopen(self.daemon.url + "/healthz") as answer:
            self.assertTrue(json.load(answer)["ok"])
        with urllib.request.urlopen(self.daemon.url + "/version") as answer:
            self.assertEqual(json.load(answer)["api"], "v1")


class SlowCopy(unittest.TestCase):
    """With a disk that is slow enough to look at a branch that is still being written."""

    refused = ForkdSdk.refused
    branch = ForkdSdk.branch
    info = ForkdSdk.info

    @classmethod
    def setUpClass(cls):
        cls.daemon = Coppiced("--copy-rate", "1M")
        cls.addClassCleanup(cls.daemon.stop)
        cls.sdk = Controller(cls.daemon.url, timeout=PATIENCE)
        cls.sdk._request("POST", "/v1/snapshots", {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 64, "boot_time_ms": 200})
        cls.parent = cls.sdk.spawn_sandboxes("base")[0]["id"]

    def test_a_snapshot_that_is_being_written_has_no_children_until_it_is_ready(self):
        self.assertEqual(self.branch(self.parent, tag="slow", mode="live", wait=False)["status"], "writing")
        self.assertEqual((self.info("slow")["status"], self.info("slow")["bootable"]), ("writing", False))
        self.assertIn("'slow' is writing", self.refused(409, self.sdk.spawn_sandboxes, "slow"))
        self.sdk.delete_snapshot("slow")
        self.assertNotIn("slow", [each["tag"] for each in self.sdk.list_snapshots()])
        self.assertEqual(self.sdk.get_sandbox(self.parent)["state"], "running")

    def test_whoever_waits_for_a_branch_that_is_deleted_hears_of_it(self):
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(self.refused(409, self.branch, self.parent, tag="given-up", mode="live")))
        waiting.start()
        while "given-up" not in [each["tag"] for each in self.sdk.list_snapshots()]:
            time.sleep(0.01)  # between two looks
        self.sdk.delete_snapshot("given-up")
        waiting.join()
        self.assertIn("its snapshot was deleted while it was made", answers[0])
        self.refused(404, self.info, "given-up")


READER, WRITER = "reader-token-0123456789", "writer-token-0123456789"


class GuardedForkdSdk(unittest.TestCase):
    """Against a daemon that wants tokens: the SDK sends the one that it is given, or that is in $FORKD_TOKEN."""

    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile("w", delete=False) as file:  # only its owner may read it
            file.write(f"watch read {READER}\nops write {WRITER}\n")
        cls.addClassCleanup(os.unlink, file.name)
        cls.daemon = Coppiced("--token-file", file.name, "--allow-path", str(JOURNAL.parent))
        cls.addClassCleanup(cls.daemon.stop)
        cls.sdk = Controller(cls.daemon.url, token=WRITER, timeout=PATIENCE)
        body = {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 64, "boot_time_ms": 200}
        cls.sdk._request("POST", "/v1/snapshots", body)
        cls.sandbox = cls.sdk.spawn_sandboxes("base")[0]["id"]

    refused = ForkdSdk.refused
    branch = ForkdSdk.branch

    def changes(self, sdk):
        """Calls that change something, of a client."""
        return [lambda: sdk.spawn_sandboxes("base"), lambda: sdk.kill_sandbox(self.sandbox), lambda: sdk.delete_snapshot("base"),
                lambda: sdk.branch_sandbox(self.sandbox, tag="b"), lambda: sdk.exec_command(self.sandbox, ["true"]),
                lambda: sdk.eval_code(self.sandbox, "1"), lambda: sdk.ping_sandbox(self.sandbox)]

    def reads(self, sdk):
        return [sdk.list_snapshots, sdk.list_sandboxes, lambda: sdk.get_sandbox(self.sandbox)]

    def tearDown(self):
        self.assertEqual([each["id"] for each in self.sdk.list_sandboxes()], [self.sandbox])
        self.assertEqual([each["tag"] for each in self.sdk.list_snapshots()], ["base"])

    def test_a_token_that_may_write_does_all(self):
        self.assertEqual(self.branch(self.sandbox, tag="b")["status"], "ready")
        child = self.sdk.spawn_sandboxes("b")[0]["id"]
        self.sdk.kill_sandbox(child)
        self.sdk.delete_snapshot("b")

    def test_a_token_that_may_read_reads_and_gets_403_for_the_rest(self):
        sdk = Controller(self.daemon.url, token=READER, timeout=PATIENCE)
        for call in self.reads(sdk):
            call()
        for call in self.changes(sdk):
            self.assertIn("watch", self.refused(403, call))

    def test_no_token_and_a_wrong_one_get_401(self):
        for token in (None, "wrong-token-0123456789"):
            sdk = Controller(self.daemon.url, token=token, timeout=PATIENCE)
            for call in self.reads(sdk) + self.changes(sdk):
                self.assertIn("Authorization: Bearer", self.refused(401, call))

    def test_the_token_is_taken_from_the_environment(self):
        with unittest.mock.patch.dict(os.environ, {"FORKD_TOKEN": READER, "FORKD_URL": self.daemon.url}):
            self.assertEqual(len(Controller(timeout=PATIENCE).list_sandboxes()), 1)


if __name__ == "__main__":
    if not pathlib.Path("/dev/kvm").exists():
        print("SKIPPED: no /dev/kvm")
        sys.exit(77)
    unittest.main(verbosity=2)
