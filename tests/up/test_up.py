"""`wideep up` from outside: configuration, the whole way of a request, readiness, an orderly end.

Argument: the binary.
"""
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from deployment import DEMO, GOLDEN, PATIENCE_S, Client, Deployment, is_alive, wait_for  # noqa: E402

WIDEEP = sys.argv[1] if len(sys.argv) > 1 else "wideep"
QUESTION = {"messages": [{"role": "user", "content": "What is a cynic?"}], "max_tokens": 24, "temperature": 0,
            "logprobs": True, "top_logprobs": 2, "return_token_ids": True}


def run(*arguments, **more):
    return subprocess.run([WIDEEP, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE_S, **more)


def shape(model, groups, flags=""):
    """A cluster of (role, ranks) for a model, small enough for any machine."""
    lines = [f"model: {json.dumps(str(model))}", "groups:"]
    for role, ranks in groups:
        lines.append(f"- {{name: {role}, role: {role}, ranks: {ranks}, threads: 1, "
                     f"flags: {{kv-cache-memory-bytes: 64M{flags}}}}}")
    lines.append("kv_lease_s: 3")
    lines.append("picker: {disaggregate: always}")
    lines.append("restart: {max_in_a_row: 1000, backoff_first_ms: 50, backoff_max_ms: 200}")
    return "\n".join(lines) + "\n"


class OneRank:
    """`wideep serve`: what everything else must equal."""

    def __init__(self, model, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        ready = pathlib.Path(self.folder.name) / "url"
        self.process = subprocess.Popen(
            [WIDEEP, "serve", str(model), "--port", "0", "--ready-file", str(ready), "--threads", "1",
             "--kv-cache-memory-bytes", "64M", *arguments], stderr=subprocess.DEVNULL)
        wait_for("one rank", lambda: ready.exists() or self.process.poll() is not None)
        self.client = Client(ready.read_text().strip())

    def __enter__(self):
        return self.client

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def said(answer):
    """What a client was told, without ids and times."""
    return [{key: value for key, value in choice.items()} for choice in answer["choices"]]


def told_in_stream(events):
    assert events[-1] == "[DONE]", events[-1:]
    text, logprobs, finish = "", [], None
    for event in events[:-1]:
        for choice in event["choices"]:
            delta = choice.get("delta", {})
            text += delta.get("content") or choice.get("text") or ""
            told = choice.get("logprobs") or {}
            logprobs += told.get("content") or list(zip(told.get("tokens", []), told.get("token_logprobs", [])))
            finish = choice.get("finish_reason") or finish
    return text, logprobs, finish


class Configuration(unittest.TestCase):
    def test_what_it_prints_it_runs_from(self):
        printed = run("up", "--model", DEMO, "--print-config", "--port", "0")
        self.assertEqual(printed.returncode, 0, printed.stderr)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(printed.stdout)
            file.flush()
            again = run("up", file.name, "--print-config")
        self.assertEqual(again.stdout, printed.stdout)

    def refused(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "c.yaml"
            path.write_text(text)
            result = run("up", path, "--run-dir", folder)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(os.listdir(folder), ["c.yaml"])
            return result.stderr

    def test_a_mistake_names_its_line_and_starts_nothing(self):
        self.assertIn("line 3: groups[0]: unknown parameter 'rnks'; did you mean 'ranks'?",
                      self.refused("model: m\ngroups:\n- {name: d, rnks: 2}\n"))
        self.assertIn("d-0: unknown option --max-num-seq; did you mean --max-num-seqs?",
                      self.refused("model: m\ngroups:\n- {name: d, flags: {max-num-seq: 2}}\n"))

    def test_the_outside_needs_keys(self):
        text = "model: m\ngroups: [{name: d}]\ngateway: {host: 0.0.0.0}\n"
        self.assertIn("0.0.0.0 can be reached from outside", self.refused(text))

    def test_a_port_that_is_taken_is_said_at_once(self):
        with socket.create_server(("127.0.0.1", 0)) as taken, tempfile.TemporaryDirectory() as folder:
            port = taken.getsockname()[1]
            result = run("up", "--model", DEMO, "--port", port, "--run-dir", folder)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(f"127.0.0.1:{port}: Address already in use", result.stderr)
            self.assertEqual(os.listdir(folder), [])

    def test_a_mistake_in_the_pickers_configuration_is_found_too(self):
        text = "model: m\ngroups: [{name: d}]\npicker:\n  config: |\n    kind: Picker\n"
        self.assertIn("picker.config: ", self.refused(text))

    def test_a_model_that_is_none_is_given_up_with_its_reason(self):
        with tempfile.TemporaryDirectory() as folder:
            result = run("up", "--model", folder, "--port", "0", "--run-dir", folder, "--no-show-logs")
            self.assertEqual(result.returncode, 1)
            self.assertIn("config.json", result.stderr)
            self.assertEqual(os.listdir(folder), [])


class WholeWay(unittest.TestCase):
    """The default deployment with the demo model: prefill and decode apart, two ranks each."""

    @classmethod
    def setUpClass(cls):
        with OneRank(DEMO) as alone:
            _, _, cls.whole = alone.post("/v1/chat/completions", QUESTION)
            _, _, cls.events = alone.stream("/v1/chat/completions", QUESTION)
        cls.up = Deployment(WIDEEP, "", "--model", DEMO, "--disaggregate", "always")
        cls.addClassCleanup(cls.up.__exit__, None, None, None)

    def test_tokens_and_logprobs_are_those_of_one_rank(self):
        for _ in range(3):  # cold, and with what caches and pickers have learnt
            status, headers, answer = self.up.client.post("/v1/chat/completions", QUESTION)
            self.assertEqual(status, 200, answer)
            self.assertEqual(said(answer), said(self.whole))
            self.assertRegex(headers["x-wideep-decode"], r"^default/decode-\d 127\.0\.0\.1:\d+$")
            self.assertRegex(headers["x-wideep-prefill"], r"^default/prefill-\d 127\.0\.0\.1:\d+$")
            status, _, events = self.up.client.stream("/v1/chat/completions", QUESTION)
            self.assertEqual(status, 200, events)
            self.assertEqual(told_in_stream(events), told_in_stream(self.events))

    def test_chat_shows_the_way(self):
        result = run("chat", "--url", self.up.url, "--quick", "Who are you?", "--route", "--stats")
        self.assertEqual(result.returncode, 0, result.stderr)
        for line in (r"prefill +prefill-\d at 127\.0\.0\.1:\d+ computed the prompt: [1-9]\d* tokens",
                     r"KV +[1-9]\d* kB moved from prefill-\d to decode-\d",
                     r"decode +decode-\d at 127\.0\.0\.1:\d+ generated [1-9]\d* tokens",
                     r"experts +decode-0: [1-9]\d* rows in [1-9]\d* experts, decode-1: [1-9]\d* rows"):
            self.assertRegex(result.stdout, line)

    def test_bench_runs_against_it(self):
        result = run("bench", "serve", "--base-url", self.up.url, "--num-prompts", 8, "--random-input-len", 30,
                     "--random-output-len", 8, "--max-concurrency", 4)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.up.check_nothing_is_used()

    def test_nobody_else_may_read_its_folder(self):
        [folder] = self.up.run_dir.iterdir()
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        for key in folder.glob("*.key"):
            self.assertEqual(key.stat().st_mode & 0o777, 0o600)


class GoldenSets(unittest.TestCase):
    def test_greedy_tokens_are_the_expected_ones(self):
        """Through gateway, sidecars and groups, in the judge's precision."""
        for name in ("dsv2-tiny-bf16", "dsv3-tiny-bf16", "dsv3-tiny-fp8", "dsv3-tiny-mtp", "qwen3moe-tiny-bf16"):
            expected = json.loads((GOLDEN / name / "expected/golden.json").read_text())
            requests = [{"prompt": prompt["input_ids"], "max_tokens": len(prompt["greedy_ids"]), "temperature": 0,
                         "logprobs": 1, "return_token_ids": True} for prompt in expected["prompts"]]
            with OneRank(GOLDEN / name, "--dtype", "float32") as alone:
                judged = [(alone.post("/v1/completions", request)[2],
                           told_in_stream(alone.stream("/v1/completions", request)[2])) for request in requests]
            config = shape(GOLDEN / name, SHAPE, ", dtype: float32")
            with self.subTest(name), Deployment(WIDEEP, config) as up:
                for request, (whole, streamed), prompt in zip(requests, judged, expected["prompts"]):
                    status, _, answer = up.client.post("/v1/completions", request)
                    self.assertEqual(status, 200, answer)
                    self.assertEqual(answer["choices"][0]["token_ids"], prompt["greedy_ids"])
                    self.assertEqual(said(answer), said(whole))
                    status, _, events = up.client.stream("/v1/completions", request)
                    self.assertEqual(status, 200, events)
                    self.assertEqual(told_in_stream(events), streamed)
                    self.assertEqual(len(streamed[1]), len(prompt["greedy_ids"]))
                up.check_nothing_is_used()
                up.stop()


class End(unittest.TestCase):
    def test_requests_under_way_end_well_and_nothing_is_left(self):
        with Deployment(WIDEEP, shape(DEMO, SHAPE)) as up:
            outcome = []
            request = {"prompt": "Once", "max_tokens": 60, "ignore_eos": True, "temperature": 0}
            thread = threading.Thread(target=lambda: outcome.append(up.client.stream("/v1/completions", request)))
            thread.start()
            wait_for("the request to run", lambda: outcome or any(
                up.metrics(e)["vllm:num_requests_running"] > 0 for e in up.endpoints().values()))
            up.stop()
            thread.join(PATIENCE_S)
            status, _, events = outcome[0]
            self.assertEqual((status, events[-1]), (200, "[DONE]"))

    def test_all_children_killed_at_once_leave_nothing_either(self):
        with Deployment(WIDEEP, shape(DEMO, SHAPE)) as up:
            children, sockets = up.children(), up.sockets()
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            up.process.send_signal(signal.SIGTERM)
            self.assertEqual(up.process.wait(PATIENCE_S), 0)
            up.check_nothing_is_left(children, sockets)

    def test_killed_itself_it_takes_its_children_along_and_the_next_one_sweeps(self):
        with tempfile.TemporaryDirectory() as folder, Deployment(WIDEEP, shape(DEMO, [("decode", 1)])) as up:
            children = up.children()
            up.process.kill()
            up.process.wait()
            wait_for("the children to be gone", lambda: not any(map(is_alive, children)))
            self.assertEqual(len(os.listdir(up.run_dir)), 1)
            run("up", "--model", folder, "--port", "0", "--run-dir", up.run_dir)
            self.assertEqual(os.listdir(up.run_dir), [])

    def test_a_second_signal_ends_at_once(self):
        with Deployment(WIDEEP, shape(DEMO, [("decode", 1)])) as up:
            children, sockets = up.children(), up.sockets()

            def ask_again_and_again():
                status = 200
                while status == 200:  # however fast the machine: there is always one under way
                    try:
                        status, _, _ = up.client.stream("/v1/completions", {"prompt": "Once", "max_tokens": 2000, "ignore_eos": True})
                    except (OSError, http.client.HTTPException):
                        break

            thread = threading.Thread(target=ask_again_and_again)
            thread.start()
            wait_for("the request to run", lambda: any(
                up.metrics(e)["vllm:num_requests_running"] > 0 for e in up.endpoints().values()))
            up.process.send_signal(signal.SIGINT)
            wait_for("the first signal", lambda: "once more ends at once" in up.log.read_text())
            up.process.send_signal(signal.SIGINT)
            self.assertEqual(up.process.wait(PATIENCE_S), 0)
            thread.join(PATIENCE_S)
            up.check_nothing_is_left(children, sockets)


SHAPE = [("prefill", 2), ("decode", 2)]

if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
