"""Groups of `wideep serve` processes for tests: started, asked, looked at from outside, ended."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/data"
DEMO = ROOT / "models/demo"
PATIENCE_S = 120
EXIT_GROUP_ENDED = 4
PROGRESS_DEADLINE_S = 60  # after which a rank that waits gives up, whatever it knows of the others


def model_path(name):
    return DEMO if name == "demo" else GOLDEN / name


def is_long():
    return bool(os.environ.get("WIDEEP_LONG"))


def await_true(condition, what, patience_s=PATIENCE_S):
    """Looks until the condition holds; there is no other way to see into another process. what: words, or what makes them."""
    give_up = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {patience_s} s: {what() if callable(what) else what}")
        time.sleep(0.02)


class Serve:
    """One `wideep serve`, whatever its flags make it: a rank, or the door of several."""

    def __init__(self, binary, model, *arguments, environment=None, before=()):
        """before: words in front of the command, such as those that choose its network."""
        self.folder = tempfile.TemporaryDirectory()
        self.ready = pathlib.Path(self.folder.name) / "url"
        self.log_path = pathlib.Path(self.folder.name) / "log"
        self.log_file = open(self.log_path, "w")
        command = [*before, binary, "serve", str(model), "--port", "0", "--ready-file", str(self.ready), "--cache-dir", "",
                   "--kv-cache-memory-bytes", "64M", "--max-model-len", "1024", *map(str, arguments)]
        self.process = subprocess.Popen(command, stderr=self.log_file, stdout=subprocess.DEVNULL,
                                        env={**os.environ, "TMPDIR": self.folder.name, "XDG_RUNTIME_DIR": self.folder.name,
                                             **(environment or {})})
        self.url = None

    def log(self):
        return self.log_path.read_text()

    def await_ready(self):
        def looks_ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            return self.ready.exists()
        try:
            await_true(looks_ready, "the server is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        self.url = self.ready.read_text().strip()
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self):
        """Waits for the process; its exit status."""
        status = self.process.wait(timeout=PATIENCE_S)
        self.log_file.close()
        return status

    def abandon(self):
        """Whatever happens, nothing is left behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log_file.close()
        self.folder.cleanup()


class Ranks:
    """A group whose ranks are started one by one. nodes: for each rank the host it pretends to be on."""

    def __init__(self, binary, model, nodes, *arguments, environment=None):
        self.meeting = tempfile.TemporaryDirectory()
        self.ranks = [Serve(binary, model, "--threads", "1", "--data-parallel-size", len(nodes), "--data-parallel-rank", rank,
                            "--enable-expert-parallel", "--data-parallel-address", f"unix:{self.meeting.name}/meeting",
                            "--node-id", node, *arguments, environment=environment) for rank, node in enumerate(nodes)]

    def __enter__(self):
        try:
            for rank in self.ranks:
                rank.await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def urls(self):
        return [rank.url for rank in self.ranks]

    def stop(self):
        """All at once: ranks that leave one after the other leave somebody behind."""
        for rank in self.ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(signal.SIGTERM)
        return [rank.end() for rank in self.ranks]

    def logs(self):
        return "\n".join(f"rank {i}:\n{rank.log()}" for i, rank in enumerate(self.ranks))

    def __exit__(self, *_):
        for rank in self.ranks:
            rank.abandon()
        self.meeting.cleanup()


class Answer:
    """What came back: status, JSON body or events, and whether the answer is whole."""

    def __init__(self, status, headers, body="", error=None):
        self.status = status
        self.headers = headers
        self.body = body
        self.error = error

    def json(self):
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connect(url, timeout):
    """To http://host:port or unix:/path."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "unix":
        return UnixConnection(parts.path, timeout)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


def call(url, path, body=None, headers=None, timeout=PATIENCE_S):
    """One request on a connection of its own; a cut connection is an Answer with an error."""
    connection = connect(url, timeout)
    status, answer_headers, text = 0, {}, b""
    try:
        payload = None if body is None else json.dumps(body)
        connection.request("POST" if body is not None else "GET", path, payload,
                           {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        status, answer_headers = response.status, {k.lower(): v for k, v in response.getheaders()}
        while piece := response.read1(65536):
            text += piece
        return Answer(status, answer_headers, text.decode())
    except (OSError, http.client.HTTPException) as error:
        return Answer(status, answer_headers, text.decode(errors="replace"), error)
    finally:
        connection.close()


def tokens_and_logprobs(answer):
    """All that a completion says of its tokens: what must be equal wherever it was computed."""
    if answer.error or answer.status != 200:
        raise AssertionError(f"{answer.status} {answer.error} {answer.body}")
    return [{"tokens": choice["token_ids"], "logprobs": choice["logprobs"], "reason": choice["finish_reason"]}
            for choice in answer.json()["choices"]]


def prompts_of(name):
    """Prompts as token ids: the golden ones, or the demo model's questions."""
    if name != "demo":
        return [prompt["input_ids"] for prompt in json.loads((model_path(name) / "expected/golden.json").read_text())["prompts"]]
    return [[(7 * i + 13 * j) % 4000 + 5 for j in range(4 + 19 * i)] for i in range(4)]


def requests_of(name):
    """A small mix: greedy and sampled, short and long, one with two choices."""
    requests = []
    for i, prompt in enumerate(prompts_of(name)):
        common = {"prompt": prompt, "return_token_ids": True, "logprobs": 3, "ignore_eos": True}
        requests.append({**common, "temperature": 0, "max_tokens": 10 + i})
        requests.append({**common, "temperature": 0.9, "top_p": 0.95, "seed": 100 + i, "max_tokens": 6 + 3 * i, "n": 1 + i % 2})
    return requests


def answers_of_one_rank(binary, name, requests, *arguments):
    server = Serve(binary, model_path(name), "--threads", "1", *arguments)
    try:
        server.await_ready()
        return [tokens_and_logprobs(call(server.url, "/v1/completions", request)) for request in requests]
    finally:
        server.stop()
        server.abandon()


def ask_all(pairs):
    """pairs: (url, request); all at the same time, answers in order."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(lambda pair: call(pair[0], "/v1/completions", pair[1]), pairs))


class HeldPort:
    """Ours, but nobody listens there: whoever names it gets it, and whoever asks for any port does not."""

    def __init__(self, number=0):
        self.holder = socket.socket()
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.holder.bind(("127.0.0.1", number))
        except (OSError, OverflowError):
            self.holder.close()
            raise
        self.number = self.holder.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.holder.close()


def children_of(pid):
    return [int(child) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()]


def rank_of(pid):
    """Which rank a child of the launcher is, by its command line."""
    words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return int(next(word for word in words if word.startswith("--data-parallel-rank=")).split("=")[1])


def exists(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Usage:
    """Wake-ups and processor time of a process so far, over all its threads."""

    def __init__(self, pid):
        self.wake_ups, self.cpu_ns = 0, 0
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    self.wake_ups += int(line.split()[1])
            self.cpu_ns += int((task / "schedstat").read_text().split()[0])
