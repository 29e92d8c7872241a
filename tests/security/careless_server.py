"""A server in the place of coppiced that guards nothing: attack_test.py shows by it that each attack can find a hole.

usage: careless_server.py CERTIFICATE KEY; prints its URL. Speaks TLS of any version or none, whatever a client begins with, answers
everything by 200, waits for ever, keeps a MiB of each connection, and writes no audit log.
"""
import itertools
import json
import signal
import socket
import socketserver
import ssl
import sys
import threading

PATHS = {"/v1/snapshots": ["post"], "/v1/snapshots/{tag}": ["delete"], "/v1/snapshots/{tag}/verify": ["post"],
         "/v1/sandboxes": ["post"],
         "/v1/sandboxes/{id}": ["delete", "get"], "/v1/sandboxes/{id}/branch": ["post"], "/v1/sandboxes/{id}/exec": ["post"],
         "/v1/sandboxes/{id}/eval": ["post"], "/v1/sandboxes/{id}/ping": ["post"], "/v1/sandboxes/{id}/journal": ["get"]}
DESCRIPTION = json.dumps({"paths": {path: dict.fromkeys(methods) for path, methods in PATHS.items()}}).encode()
serial = itertools.count()
kept = []


class Careless(socketserver.StreamRequestHandler):
    def setup(self):
        kept.append(bytearray(b"x") * 2**20)
        if self.request.recv(1, socket.MSG_PEEK) == b"\x16":
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self):
        while line := self.rfile.readline():  # a body is read as the next request is
            words = line.split()
            if len(words) != 3:
                continue
            body = DESCRIPTION if b"openapi" in line else b'[{"tag": "x", "id": "x", "requests": %d}]' % next(serial)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Request-Id: %d\r\n\r\n%s" % (len(body), next(serial), body))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1000

    def handle_error(self, *_):  # of a client that left
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.stack_size(2**18)
    with Server(("127.0.0.1", 0), Careless) as server:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(*sys.argv[1:])
        server.tls.set_ciphers("ALL:@SECLEVEL=0")
        server.tls.minimum_version = ssl.TLSVersion.TLSv1
        print(f"https://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
