"""A `wideep up` of our own, from its start to its end, and what can be seen of it from outside."""
import json
import http.client
import os
import pathlib
import select
import signal
import subprocess
import tempfile
import time
import urllib.parse

PATIENCE_S = 240
ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/data"
DEMO = ROOT / "models/demo"


def wait_for(what, condition, patience_s=PATIENCE_S):
    """Polls until the condition holds, and returns what it gave."""
    give_up = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"not within {patience_s} s: {what}"
        select.select([], [], [], 0.05)


def is_alive(pid):
    """A process that runs; one that has ended and waits for its parent does not count."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parse_metrics(text):
    """The sum of each series over its labels."""
    sums = {}
    for line in text.splitlines():
        if line and line[0] != "#":
            name, value = line.split("{")[0].split(" ")[0], float(line.rsplit(" ", 1)[1])
            sums[name] = sums.get(name, 0.0) + value
    return sums


def listening(ports):
    """The sockets that listen on these ports: a number each that no other socket ever has."""
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) in ports}


class Client:
    """One connection per request, with a deadline; HTTP and nothing more."""

    def __init__(self, url, deadline_s=PATIENCE_S):
        self.address = urllib.parse.urlsplit(url).netloc
        self.deadline_s = deadline_s

    def get(self, path, address=None):
        connection = http.client.HTTPConnection(address or self.address, timeout=self.deadline_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def post(self, path, body):
        """(status, headers, parsed body)"""
        connection = http.client.HTTPConnection(self.address, timeout=self.deadline_s)
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def stream(self, path, body):
        """(status, headers, list of events); the last is "[DONE]" unless the stream was cut."""
        connection = http.client.HTTPConnection(self.address, timeout=self.deadline_s)
        events = []
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}),
                               {"content-type": "application/json"})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            if response.status != 200:
                return response.status, headers, [json.loads(response.read() or b"null")]
            try:
                for line in response:
                    if line.startswith(b"data: "):
                        data = line[6:].strip().decode()
                        events.append(data if data == "[DONE]" else json.loads(data))
            except (http.client.HTTPException, OSError):
                pass  # cut: what has come counts, and the missing [DONE] tells
            return response.status, headers, events
        finally:
            connection.close()


class Deployment:
    def __init__(self, wideep, config="", *arguments):
        """`config` is YAML, or "" for the default deployment."""
        self.folder = tempfile.TemporaryDirectory()
        base = pathlib.Path(self.folder.name)
        self.run_dir = base / "run"
        self.run_dir.mkdir()
        ready = base / "url"
        self.log = base / "log"
        command = [wideep, "up"]
        if config:
            (base / "cluster.yaml").write_text(config)
            command.append(base / "cluster.yaml")
        command += ["--port", "0", "--ready-file", ready, "--run-dir", self.run_dir, *arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(part) for part in command], stderr=log)
        try:
            wait_for("the deployment to be ready", lambda: ready.exists() or self.process.poll() is not None)
            assert ready.exists(), "the deployment ended"
            self.url = ready.read_text().strip()
            self.client = Client(self.url)
            wait_for("the gateway to see the endpoints", lambda: self.client.get("/health")[0] == 200)
        except BaseException:
            self.process.kill()
            self.process.wait()
            print(self.log.read_text())
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.log.read_text()[-20_000:])
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def children(self):
        """pid -> what it is: "serve 8001", "sidecar 8002", "gateway 8003"."""
        found = {}
        for pid in pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if "--port" in words:
                found[int(pid)] = f"{words[1]} {words[words.index('--port') + 1]}"
        return found

    def endpoints(self):
        """name -> {address, role, ...} of what the gateway may call now."""
        status, body = self.client.get("/endpoints")
        assert status == 200, body
        return {item["name"].split("/")[-1]: item for item in json.loads(body)["endpoints"]}

    def metrics(self, endpoint):
        status, body = self.client.get("/metrics", endpoint["address"])
        assert status == 200, body
        return parse_metrics(body)

    def num_blocks(self, endpoint):
        _, body = self.client.get("/metrics", endpoint["address"])
        return int(body.split('num_gpu_blocks="')[1].split('"')[0])

    def kill(self, pid):
        """SIGKILL for one process; returns when another does its work."""
        what = self.children()[pid]
        os.kill(pid, signal.SIGKILL)
        wait_for(f"{what} to be started again",
                 lambda: any(other != pid and name == what for other, name in self.children().items()))

    def wait_until_whole(self, names):
        """Every endpoint is listed again, and the rank behind it answers."""
        def whole():
            try:
                endpoints = self.endpoints()
                return set(endpoints) == set(names) and all(
                    self.client.get("/metrics", e["address"])[0] == 200 for e in endpoints.values())
            except (OSError, http.client.HTTPException, AssertionError, ValueError):
                return False
        wait_for(f"all of {sorted(names)}", whole)

    def check_nothing_is_used(self):
        """Every block is free, no request runs."""
        for name, endpoint in self.endpoints().items():
            total = self.num_blocks(endpoint)
            wait_for(f"all {total} blocks of {name} to be free",
                     lambda: self.metrics(endpoint)["wideep:kv_blocks_free"] == total)
            figures = self.metrics(endpoint)
            assert figures["vllm:num_requests_running"] == 0, (name, figures)
            assert figures["vllm:num_requests_waiting"] == 0, (name, figures)

    def stop(self):
        """SIGTERM; checks that it ends well and leaves nothing."""
        children, sockets = self.children(), self.sockets()
        assert sockets
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()
        self.check_nothing_is_left(children, sockets)

    def sockets(self):
        """Those that its processes listen on."""
        return listening({int(what.split()[1]) for what in self.children().values()})

    def check_nothing_is_left(self, children, sockets):
        wait_for("the processes to be gone", lambda: not any(map(is_alive, children)))
        assert not os.listdir(self.run_dir), os.listdir(self.run_dir)
        ports = {int(what.split()[1]) for what in children.values()}
        assert not listening(ports) & sockets  # others may have got the ports by now
        maps = [name for name in os.listdir("/dev/shm") if "wideep" in name]
        assert not maps, maps
