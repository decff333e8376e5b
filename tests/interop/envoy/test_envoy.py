"""A real Envoy asks `wideep epp` where each request goes. Arguments: the wideep binary, the envoy binary."""
import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

WIDEEP, ENVOY = sys.argv[1:3]
PATIENCE_S = 120

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: file-discovery
  parameters: {path: %s, watchFile: true}
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters: {deciders: {prefill: always-disagg-pd-decider}}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: queue-scorer}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer}]
dataLayer: {discovery: {pluginRef: file-discovery}}
"""


class Engine(http.server.ThreadingHTTPServer):
    """Stands for a model server: says what it got, streams if asked to, and has a queue length."""

    daemon_threads = True

    def __init__(self, name, waiting):
        self.name, self.waiting, self.seen = name, waiting, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, content_type="application/json"):
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read_body(self):
        if self.headers["content-length"] is not None:
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""  # chunked: Envoy does not know how long the picker's answer will be
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_GET(self):
        if self.path == "/metrics":
            self.answer(f"vllm:num_requests_waiting {self.server.waiting}\n".encode(), "text/plain")
        else:
            self.answer(json.dumps({"server": self.server.name}).encode())

    def do_POST(self):
        body = self.read_body()
        self.server.seen.append({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body})
        if json.loads(body).get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for event in (b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', b"data: [DONE]\n\n"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(json.dumps({"server": self.server.name, "bytes": len(body)}).encode())


def held_port():
    """A socket whose port is ours, though nobody listens there: whoever names it gets it, nobody else does."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def wait_until(condition, what):
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.05)


class EnvoyTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        folder = pathlib.Path(cls.folder.name)
        cls.prefill, cls.busy, cls.idle = Engine("prefill", 0), Engine("busy", 9), Engine("idle", 1)
        cls.endpoints = folder / "endpoints.yaml"
        cls.write_endpoints([("p", cls.prefill, "prefill"), ("b", cls.busy, "decode"), ("i", cls.idle, "decode")])
        (folder / "picker.yaml").write_text(CONFIG % cls.endpoints)
        cls.metrics_port = cls.enterClassContext(held_port()).getsockname()[1]
        cls.picker = subprocess.Popen([WIDEEP, "epp", "--grpc-port", "0", "--metrics-port", str(cls.metrics_port),
                                       "--config-file", folder / "picker.yaml", "--ready-file", folder / "ready"])
        cls.addClassCleanup(cls.stop, cls.picker)
        wait_until((folder / "ready").exists, "wideep epp is ready")
        picker_port = (folder / "ready").read_text().strip().split(":")[1]
        cls.door = cls.enterClassContext(held_port()).getsockname()[1]
        text = (pathlib.Path(__file__).parent / "envoy.yaml").read_text()
        (folder / "envoy.yaml").write_text(text.replace("@DOOR@", str(cls.door)).replace("@PICKER@", picker_port))
        cls.envoy = subprocess.Popen([ENVOY, "-c", folder / "envoy.yaml", "--concurrency", "1", "-l", "error",
                                      "--base-id-path", folder / "base_id", "--use-dynamic-base-id"])
        cls.addClassCleanup(cls.stop, cls.envoy)
        wait_until(lambda: cls.can_connect(), "envoy listens")
        # Until the queue lengths have been scraped the choice is open.
        wait_until(lambda: b"idle" in cls.post({"model": "m", "prompt": "x"})[1], "scrapes")

    @staticmethod
    def stop(process):
        process.terminate()
        process.wait(timeout=PATIENCE_S)

    @classmethod
    def write_endpoints(cls, entries):
        lines = [f'- {{name: {name}, address: 127.0.0.1, port: "{engine.port}", labels: {{llm-d.ai/role: {role}}}}}'
                 for name, engine, role in entries]
        new = cls.endpoints.with_suffix(".new")
        new.write_text("endpoints:\n" + "\n".join(lines) + "\n")
        os.replace(new, cls.endpoints)

    @classmethod
    def can_connect(cls):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", cls.door)) == 0

    @classmethod
    def post(cls, body, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", cls.door, timeout=PATIENCE_S)
        connection.request("POST", "/v1/completions", body if isinstance(body, bytes) else json.dumps(body).encode(),
                           {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    def test_goes_to_the_decode_endpoint_with_the_shortest_queue_and_names_the_prefiller(self):
        self.idle.seen.clear()
        response, body = self.post({"model": "m", "prompt": "hello"})
        self.assertEqual(response.status, 200)
        self.assertEqual(json.loads(body)["server"], "idle")
        self.assertEqual(self.idle.seen[-1]["headers"]["x-prefiller-host-port"], f"127.0.0.1:{self.prefill.port}")
        self.assertEqual(response.headers["x-went-into-resp-headers"], "true")

    def test_a_clients_own_routing_headers_do_not_pass(self):
        self.post({"model": "m", "prompt": "x"}, {"x-prefiller-host-port": "evil:1", "x-data-parallel-host-port": "evil:2"})
        seen = self.idle.seen[-1]["headers"]
        self.assertEqual(seen["x-prefiller-host-port"], f"127.0.0.1:{self.prefill.port}")
        self.assertNotIn("x-data-parallel-host-port", seen)

    def test_a_long_body_arrives_whole(self):
        prompt = "word " * 60000
        response, body = self.post({"model": "m", "prompt": prompt})
        self.assertEqual(response.status, 200)
        self.assertEqual(json.loads(self.idle.seen[-1]["body"])["prompt"], prompt)

    def test_what_the_picker_decided_is_counted(self):
        def counted():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE_S) as answer:
                lines = answer.read().decode().splitlines()
            series = 'llm_d_inference_scheduler_disagg_decision_total{decision_type="prefill-decode"} '
            return next(float(line.removeprefix(series)) for line in lines if line.startswith(series))
        before = counted()
        self.post({"model": "m", "prompt": "x"})
        self.assertEqual(counted(), before + 1)

    def test_streams_pass(self):
        response, body = self.post({"model": "m", "prompt": "x", "stream": True})
        self.assertEqual(response.headers["content-type"], "text/event-stream")
        self.assertTrue(body.endswith(b"data: [DONE]\n\n"))

    def test_a_request_without_a_body_goes_anywhere(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.door, timeout=PATIENCE_S)
        connection.request("GET", "/v1/models")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()

    def test_broken_json_is_a_clients_fault(self):
        response, body = self.post(b"{")
        self.assertEqual(response.status, 400)
        self.assertIn(b"inference error: BadRequest", body)

    def test_no_endpoint_is_503_until_the_file_brings_one_back(self):
        self.write_endpoints([("p", self.prefill, "prefill")])
        wait_until(lambda: self.post({"model": "m", "prompt": "x"})[0].status == 503, "503")
        response, _ = self.post({"model": "m", "prompt": "x"})
        self.assertEqual(response.headers["x-llm-d-request-dropped-reason"], "rejected-no-endpoints")
        self.write_endpoints([("p", self.prefill, "prefill"), ("b", self.busy, "decode"), ("i", self.idle, "decode")])
        wait_until(lambda: self.post({"model": "m", "prompt": "x"})[0].status == 200, "the endpoints are back")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]], verbosity=2)
