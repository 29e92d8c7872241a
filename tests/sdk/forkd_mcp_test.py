"""forkd's own MCP server, unchanged and spoken to over MCP, drives coppiced in everything that needs no agent inside."""
import asyncio
import json
import pathlib
import sys
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from coppiced import JOURNAL, Coppiced  # noqa: E402

from mcp import ClientSession, StdioServerParameters  # noqa: E402
from mcp.client.stdio import stdio_client  # noqa: E402

PATIENCE = 60  # seconds
TOOLS = {"list_snapshots", "spawn_sandboxes", "branch_sandbox", "create_snapshot", "list_sandboxes", "get_sandbox", "kill_sandbox",
         "exec_command", "eval_code", "ping_sandbox", "wait_for_text"}


class Tools:
    """The tools of an MCP server, each as a call."""

    def __init__(self, session):
        self.session = session

    async def names(self):
        return {each.name for each in (await self.session.list_tools()).tools}

    async def answer(self, name, **arguments):
        """What the tool returned, or the text of its error."""
        result = await self.session.call_tool(name, arguments)
        if result.isError:
            return result.content[0].text
        returned = result.structuredContent
        return returned.get("result", returned) if returned is not None else json.loads(result.content[0].text)


class ForkdMcp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Coppiced()
        cls.addClassCleanup(cls.daemon.stop)
        cls.rest("POST", "/v1/snapshots", {"tag": "base", "kernel": str(JOURNAL), "memory_mib": 64, "boot_time_ms": 200})

    @classmethod
    def rest(cls, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(cls.daemon.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    def setUp(self):
        self.parent = self.rest("POST", "/v1/sandboxes", {"snapshot_tag": "base"})[0]["id"]

    def tearDown(self):
        for sandbox in self.rest("GET", "/v1/sandboxes"):
            self.rest("DELETE", f"/v1/sandboxes/{sandbox['id']}")

    def drive(self, scenario):
        """Runs `scenario` with the tools of a server of its own."""
        async def run():
            start = ["-c", "from forkd_mcp.server import main; main()"]
            server = StdioServerParameters(command=sys.executable, args=start, env={"FORKD_URL": self.daemon.url})
            async with stdio_client(server) as (reader, writer), ClientSession(reader, writer) as session:
                await session.initialize()
                await scenario(Tools(session))
        asyncio.run(run())

    async def branch(self, tools, **arguments):
        """A branch; again if a deadline of it was missed, as a busy host may."""
        deadline = time.monotonic() + PATIENCE
        while True:
            made = await tools.answer("branch_sandbox", sandbox_id=self.parent, **arguments)
            if "503" not in made or time.monotonic() > deadline:
                return made

    def test_its_tools_are_those_that_are_tried_here(self):
        async def scenario(tools):
            self.assertEqual(await tools.names(), TOOLS)
        self.drive(scenario)

    def test_a_sandbox_is_branched_in_each_mode_and_ended(self):
        async def scenario(tools):
            for number, options in enumerate([{"mode": "live"}, {"mode": "full"}, {"mode": "diff"}, {"diff": True}, {}]):
                with self.subTest(options):
                    made = await self.branch(tools, tag=f"b{number}", **options)
                    self.assertEqual((made["tag"], made["status"], made["branched_from"]), (f"b{number}", "ready", self.parent))
                    self.assertIsInstance(made["pause_ms"], int)
                    self.assertGreaterEqual(made["pause_ms"], 1)
            tags = {each["tag"] for each in await tools.answer("list_snapshots")}
            self.assertLessEqual({"base", "b0", "b1", "b2", "b3", "b4"}, tags)
            self.assertEqual((await tools.answer("get_sandbox", sandbox_id=self.parent))["snapshot_tag"], "base")
            self.assertEqual(await tools.answer("kill_sandbox", sandbox_id=self.parent), {"id": self.parent, "killed": True})
            self.assertNotIn(self.parent, [each["id"] for each in await tools.answer("list_sandboxes")])
        self.drive(scenario)

    def test_a_tag_that_is_taken_and_a_snapshot_that_is_none_are_told_as_forkd_does(self):
        async def scenario(tools):
            self.assertIn("409", await tools.answer("branch_sandbox", sandbox_id=self.parent, tag="base"))
            self.assertIn("404", await tools.answer("spawn_sandboxes", snapshot_tag="none"))
            self.assertIn("400", await tools.answer("branch_sandbox", sandbox_id=self.parent, mode="full", measure_diff=True))
        self.drive(scenario)

    def test_a_base_is_asked_for_with_all_that_it_sends(self):
        """coppice-vmm has no drives, which the server always asks for: 409, after every field was understood (else 400)."""
        async def scenario(tools):
            for number, options in enumerate([{}, {"rw": True}, {"boot_wait_secs": 30}, {"tap": "forkd-tap0"}]):
                with self.subTest(options):
                    refused = await tools.answer("create_snapshot", tag=f"made{number}", kernel=str(JOURNAL),
                                                 rootfs=str(JOURNAL), **options)
                    self.assertIn("409", refused)
            self.assertIn("400", await tools.answer("create_snapshot", tag="made", kernel="/none", rootfs=str(JOURNAL)))
        self.drive(scenario)

    def test_a_memory_limit_which_it_always_sends_needs_a_cgroup(self):
        async def scenario(tools):
            self.assertIn("409", await tools.answer("spawn_sandboxes", snapshot_tag="base", n=2, live_fork=True, prewarm=True))
        self.drive(scenario)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.rest("POST", "/v1/sandboxes", {"snapshot_tag": "base", "memory_limit_mib": 256})
        with caught.exception as failure:
            self.assertIn("--cgroup", json.loads(failure.read())["error"])


if __name__ == "__main__":
    if not pathlib.Path("/dev/kvm").exists():
        print("SKIPPED: no /dev/kvm")
        sys.exit(77)
    unittest.main(verbosity=2)
