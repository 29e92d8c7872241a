"""An agent as it would run inside a guest, in the place of one: the journal guest has no network. Listens at the guest's address
in the sandbox's network namespace, and speaks the protocol of forkd's SDK."""
import ast
import contextlib
import json
import socketserver
import subprocess
import sys

NAMESPACES_WORK = subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode == 0
ADDRESS = ("10.42.0.2", 8888)


@contextlib.contextmanager
def agent_in(netns: str, name: str):
    """Runs until the end of the context; `name` is at the beginning of what its programs print."""
    command = ["nsenter", f"--net={netns}", sys.executable, __file__, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "listening\n", "the agent did not start"
            yield
        finally:
            process.kill()


def exec_program(asked):
    return {"stdout": f"{sys.argv[1]}: {' '.join(asked['args'])}\n", "stderr": "", "exit_code": 0}


def eval_code(asked):
    try:
        return {"result": repr(ast.literal_eval(asked["code"]))}
    except (ValueError, SyntaxError, MemoryError, RecursionError) as failure:
        return {"error": str(failure)}


def ping(_):
    return {"pong": True}


class Agent(socketserver.StreamRequestHandler):
    def handle(self):
        asked = json.loads(self.rfile.read())
        answer = {"exec": exec_program, "eval": eval_code, "ping": ping}[asked["action"]](asked)
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    subprocess.run(["ip", "addr", "add", ADDRESS[0] + "/32", "dev", "lo"], check=True)
    with socketserver.ThreadingTCPServer(ADDRESS, Agent) as server:
        print("listening", flush=True)
        server.serve_forever()
