"""One command starts the ranks of a host, each with an API at a port of its own: --data-parallel-multi-port-external-lb.

Arguments: the binary, then unittest's.
"""
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

import ranks
from doors import MODEL, WIDEEP
from ranks import Serve, answers_of_one_rank, ask_all, await_true, call, tokens_and_logprobs


class Host(Serve):
    """The ranks of one host, and who watches over them."""

    def __init__(self, size, *arguments, experts=("--enable-expert-parallel",), **options):
        super().__init__(WIDEEP, ranks.model_path(MODEL), "--threads", "1", "--data-parallel-size", size, *experts,
                         "--data-parallel-multi-port-external-lb", "--data-parallel-supervisor-port", 0, *arguments, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.abandon()

    def urls(self):
        """Of the ranks, in their order."""
        return self.await_ready().url.splitlines()

    def health(self, path="/health"):
        found = []
        await_true(lambda: found.extend(re.findall(r"(http://\S+)/health tells", self.log())) or found, self.log)
        return call(found[0], path)

    def pids(self):
        return {ranks.rank_of(pid): pid for pid in ranks.children_of(self.process.pid)}

    def remains(self):
        return [path.name for path in pathlib.Path(self.folder.name).iterdir() if path.name.startswith("wideep-")]


def engines_of(url):
    return set(re.findall(r'vllm:num_requests_running\{[^}]*engine="(\d+)"', call(url, "/metrics").body))


class OwnPorts(unittest.TestCase):
    def start(self, *arguments, **options):
        host = Host(*arguments, **options)
        self.addCleanup(host.abandon)
        return host

    def check_tokens(self, urls):
        requests = ranks.requests_of(MODEL)
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)
        answers = ask_all([(url, request) for url in urls for request in requests])
        for answer, wanted in zip(answers, expected * len(urls)):
            self.assertEqual(tokens_and_logprobs(answer), wanted)
        return expected

    def check_end(self, host, pids, status):
        self.assertEqual(host.end(), status, host.log())
        self.assertEqual([pid for pid in pids.values() if ranks.exists(pid)], [])
        self.assertEqual(host.remains(), [])

    def test_every_rank_answers_at_its_own_port_with_the_same_tokens_and_its_own_metrics(self):
        host = self.start(3)
        urls = host.urls()
        self.assertEqual(len(set(urls)), 3)
        self.check_tokens(urls)
        for rank, url in enumerate(urls):
            self.assertEqual(engines_of(url), {str(rank)})
            self.assertIn(f"serving {ranks.model_path(MODEL)} with rank {rank} at {url}", host.log())
        for path in ("/health", "/ready", "/readyz"):
            answer = host.health(path)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual([(rank["rank"], f"http://{rank['address']}", rank["healthy"]) for rank in answer.json()["ranks"]],
                             [(rank, url, True) for rank, url in enumerate(urls)])
        pids = host.pids()
        self.assertEqual(sorted(pids), [0, 1, 2])
        host.process.send_signal(signal.SIGTERM)
        self.check_end(host, pids, 0)

    def test_the_ports_follow_each_other(self):
        port = self.two_ports()
        host = self.start(2, "--port", port)
        self.assertEqual(host.urls(), [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"])
        self.assertEqual(engines_of(host.urls()[1]), {"1"})

    def two_ports(self):
        """The first of two that follow each other, both held."""
        while True:
            first = self.enterContext(ranks.HeldPort())
            try:
                self.enterContext(ranks.HeldPort(first.number + 1))
                return first.number
            except (OSError, OverflowError):
                pass  # the next one is somebody's: another pair

    def test_keys_are_those_of_every_rank_and_on_no_command_line(self):
        host = self.start(2, "--api-key", "open sesame")
        for url in host.urls():
            self.assertEqual(call(url, "/v1/models").status, 401)
            self.assertEqual(call(url, "/v1/models", headers={"authorization": "Bearer open sesame"}).status, 200)
        self.assertEqual(host.health().status, 200)
        for pid in host.pids().values():
            self.assertNotIn("sesame", pathlib.Path(f"/proc/{pid}/cmdline").read_text())

    def test_a_rank_that_is_killed_ends_all_of_them(self):
        self.check_loss(signal.SIGKILL, "rank 1: killed by SIGKILL")

    def test_a_rank_that_is_stopped_ends_all_of_them(self):
        self.check_loss(signal.SIGSTOP, "rank 1 lost (no heartbeat")

    def check_loss(self, number, words):
        host = self.start(3)
        urls, pids, answers = host.urls(), host.pids(), []
        request = {**ranks.requests_of(MODEL)[0], "max_tokens": 900, "stream": True}
        clients = [threading.Thread(target=lambda url=url: answers.append(call(url, "/v1/completions", request)))
                   for url in (urls[0], urls[2])]
        for client in clients:
            client.start()
        running = [f'vllm:num_requests_running{{model_name="{MODEL}",engine="{rank}"}} 1' for rank in (0, 2)]
        await_true(lambda: len(answers) == 2 or (running[0] in call(urls[0], "/metrics").body
                                                 and running[1] in call(urls[2], "/metrics").body), "load")
        os.kill(pids[1], number)
        self.check_end(host, pids, ranks.EXIT_GROUP_ENDED)
        self.assertIn(words, host.log())
        self.assertIn("rank 1 lost", host.log())
        self.assertNotIn("starts again", host.log())
        for client in clients:
            client.join()
        for answer in answers:
            self.assertIn("rank_lost", answer.body)

    def test_two_hosts_are_one_group(self):
        with tempfile.TemporaryDirectory() as folder:
            secret = pathlib.Path(folder) / "key"
            secret.write_text("a secret of the two hosts\n")
            secret.chmod(0o600)
            common = ["--data-parallel-size-local", 2, "--data-parallel-address", f"unix:{folder}/meeting",
                      "--data-parallel-key-file", secret]
            first = self.start(4, *common, "--node-id", 0)
            # Nobody serves while half of the group is missing.
            answer = first.health()
            self.assertEqual(answer.status, 503)
            self.assertEqual([rank["healthy"] for rank in answer.json()["ranks"]], [False, False])
            second = self.start(4, *common, "--node-id", 1, "--data-parallel-start-rank", 2)
            urls = first.urls() + second.urls()
            self.check_tokens(urls)
            self.assertEqual([engines_of(url) for url in urls], [{"0"}, {"1"}, {"2"}, {"3"}])
            self.assertIn('engine="3",peer="0",node="0",transport="tcp"} 1', call(urls[3], "/metrics").body)
            pids = [first.pids(), second.pids()]
            os.kill(pids[1][2], signal.SIGKILL)
            for host, own in zip((first, second), pids):
                self.check_end(host, own, ranks.EXIT_GROUP_ENDED)
                self.assertIn("rank 2 lost", host.log())

    def test_independent_ranks_start_again_one_by_one(self):
        host = self.start(2, experts=())
        urls, pids = host.urls(), host.pids()
        expected = self.check_tokens(urls)
        os.kill(pids[1], signal.SIGKILL)
        await_true(lambda: not ranks.exists(pids[1]) and host.health().status == 503, "the loss shows")
        await_true(lambda: host.health().status == 200, "the rank is back")
        self.assertEqual(host.pids()[0], pids[0], "the other one has gone on")
        answer = call(urls[1], "/v1/completions", ranks.requests_of(MODEL)[0])
        self.assertEqual(tokens_and_logprobs(answer), expected[0])
        self.assertEqual(host.stop(), 0)


class Mistakes(unittest.TestCase):
    def test_what_makes_no_sense_is_refused_by_name(self):
        for arguments, words in [(["--data-parallel-rank", "1"], "--data-parallel-rank says otherwise"),
                                 (["--data-parallel-hybrid-lb"], "--data-parallel-hybrid-lb says otherwise"),
                                 (["--data-parallel-size-local", "1", "--data-parallel-start-rank", "1", "--headless"],
                                  "--headless says otherwise"),
                                 (["--uds", "/tmp/x"], "--uds"),
                                 (["--metrics-port", "9000"], "--metrics-port"),
                                 (["--port", "65535"], "--port 65535"),
                                 (["--port", "9255"], "--data-parallel-supervisor-port 9256 is that of rank 1"),
                                 (["--data-parallel-supervisor-port", "70000"], "--data-parallel-supervisor-port 70000"),
                                 (["--no-data-parallel-multi-port-external-lb", "--data-parallel-supervisor-port", "1"],
                                  "--data-parallel-supervisor-port is for --data-parallel-multi-port-external-lb")]:
            result = subprocess.run([WIDEEP, "serve", "x", "--data-parallel-size", "2", "--data-parallel-multi-port-external-lb",
                                     *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(words, result.stderr)

    def test_a_port_that_somebody_has_is_told_before_anything_is_loaded(self):
        with socket.socket() as somebody:
            somebody.bind(("127.0.0.1", 0))
            somebody.listen()
            port = somebody.getsockname()[1]
            result = subprocess.run([WIDEEP, "serve", ranks.GOLDEN / MODEL, "--data-parallel-size", "1", "--data-parallel-multi-port-external-lb",
                                     "--port", str(port)], capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(f"127.0.0.1:{port}", result.stderr)

    def test_a_bad_model_is_told_at_once(self):
        with tempfile.TemporaryDirectory() as empty:
            result = subprocess.run([WIDEEP, "serve", empty, "--data-parallel-size", "2", "--data-parallel-multi-port-external-lb",
                                     "--port", "0", "--data-parallel-supervisor-port", "0"], capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertIn("config.json", result.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
