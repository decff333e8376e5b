"""Groups of ranks as a person runs them: the same tokens as one rank, no stalls, no sleepers that wake, no loss in silence.

Arguments: the binary, then unittest's. With WIDEEP_LONG=1 requests arrive for three minutes.
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import ranks
from ranks import Ranks, Serve, answers_of_one_rank, ask_all, call, tokens_and_logprobs

WIDEEP = sys.argv[1]
SETS = ["dsv2-tiny-bf16", "dsv3-tiny-bf16", "dsv3-tiny-fp8", "dsv3-tiny-mtp", "qwen3moe-tiny-bf16", "demo"]
# The nodes of each rank: one host, 2 x 2, 3 + 2, 4 x 2, and a rank alone on its host.
SHAPES = [[0], [0, 0], [0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1, 1], [0] * 5,
          [0] * 4 + [1] * 4, [0, 0, 1, 1, 2, 2, 3, 3]]
ARRIVALS_S = 180 if ranks.is_long() else 8


class SameTokens(unittest.TestCase):
    """Promise 1 through the API: tokens and logprobs of every rank of every group are those of one rank."""

    def check(self, name, shapes, *arguments):
        requests = ranks.requests_of(name)
        expected = answers_of_one_rank(WIDEEP, name, requests, *arguments)
        for nodes in shapes:
            with self.subTest(f"{name} {nodes} {arguments}"), Ranks(WIDEEP, ranks.model_path(name), nodes, *arguments) as group:
                choose = random.Random(len(nodes))
                for wave in range(2):
                    # Each request on some rank, all at once; then all on the last one, while the others only serve.
                    urls = [choose.choice(group.urls()) if wave == 0 else group.urls()[-1] for _ in requests]
                    answers = ask_all(list(zip(urls, requests)))
                    for request, answer, wanted in zip(requests, answers, expected):
                        self.assertEqual(tokens_and_logprobs(answer), wanted, request)
                self.assertEqual(group.stop(), [0] * len(nodes), group.logs())

    def test_over_sets_sizes_and_hosts(self):
        for name in SETS:
            self.check(name, SHAPES)

    def test_in_other_formats(self):
        self.check("dsv3-tiny-fp8", [[0, 0, 1]], "--quantization", "int8", "--dispatch-dtype", "int8",
                   "--max-num-batched-tokens", "96")


class Ucx(unittest.TestCase):
    """--data-parallel-transport ucx, over transports that any machine has: UCX_TLS names them, as everywhere."""

    def group(self, nodes, transports, name="dsv3-tiny-mtp"):
        return Ranks(WIDEEP, ranks.model_path(name), nodes, "--data-parallel-transport", "ucx", environment={"UCX_TLS": transports})

    def test_the_same_tokens(self):
        for name, nodes, transports in [("dsv3-tiny-mtp", [0, 1], "tcp"), ("dsv3-tiny-fp8", [0, 0, 1, 1], "tcp"),
                                        ("qwen3moe-tiny-bf16", [0, 0, 1], "posix,self")]:
            requests = ranks.requests_of(name)
            expected = answers_of_one_rank(WIDEEP, name, requests)
            with self.subTest(f"{name} {nodes} {transports}"), self.group(nodes, transports, name) as group:
                answers = ask_all([(group.urls()[i % len(nodes)], request) for i, request in enumerate(requests)])
                self.assertEqual([tokens_and_logprobs(answer) for answer in answers], expected)
                last = len(nodes) - 1
                self.assertIn(f'engine="{last}",peer="0",node="0",transport="ucx"}} 1', call(group.urls()[last], "/metrics").body)
                self.assertEqual(group.stop(), [0] * len(nodes))

    def test_a_rank_is_killed(self):
        with self.group([0, 0, 1, 1], "posix,self") as group:
            request = {**ranks.requests_of("dsv3-tiny-mtp")[0], "max_tokens": 900}
            answers, lock = [], threading.Lock()

            def client(url):
                answer = call(url, "/v1/completions", request)
                with lock:
                    answers.append(answer)

            clients = [threading.Thread(target=client, args=(group.urls()[i],)) for i in (0, 1, 3)]
            for thread in clients:
                thread.start()
            running = 'vllm:num_requests_running{model_name="dsv3-tiny-mtp",engine="3"} 1'
            ranks.await_true(lambda: answers or running in call(group.urls()[3], "/metrics").body, "load")
            killed = time.monotonic()
            group.ranks[2].process.kill()
            for rank in (0, 1, 3):
                self.assertEqual(group.ranks[rank].end(), ranks.EXIT_GROUP_ENDED, group.ranks[rank].log())
                self.assertIn("rank 2 lost", group.ranks[rank].log())
            self.assertLess(time.monotonic() - killed, ranks.PROGRESS_DEADLINE_S)
            for thread in clients:
                thread.join()
            self.assertEqual({answer.status for answer in answers}, {503})

    def test_without_an_rdma_device_and_names_it_is_refused(self):
        if os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
            self.skipTest("this host has an RDMA device")
        port = self.enterContext(ranks.HeldPort()).number
        pair = [Serve(WIDEEP, ranks.model_path("dsv3-tiny-mtp"), "--data-parallel-size", 2, "--data-parallel-rank", rank,
                      "--enable-expert-parallel", "--node-id", rank, "--data-parallel-transport", "ucx",
                      "--data-parallel-rpc-port", port) for rank in (0, 1)]
        try:
            for rank in pair:
                self.assertNotEqual(rank.end(), 0)
            self.assertTrue(any("no RDMA device" in rank.log() for rank in pair))
        finally:
            for rank in pair:
                rank.abandon()


class Arrivals(unittest.TestCase):
    """Requests come and go at random on random ranks, ranks fall asleep between: nobody ever waits for long."""

    def test_never_stall(self):
        name = "dsv3-tiny-mtp"
        requests = ranks.requests_of(name)
        expected = answers_of_one_rank(WIDEEP, name, requests)
        with Ranks(WIDEEP, ranks.model_path(name), [0, 0, 1, 1]) as group:
            stop_at = time.monotonic() + ARRIVALS_S
            problems, latencies, lock = [], [], threading.Lock()

            def client(seed):
                choose = random.Random(seed)
                while (time.monotonic() < stop_at or len(latencies) <= ARRIVALS_S) and not problems:
                    i = choose.randrange(len(requests))
                    url = choose.choice(group.urls())
                    start = time.monotonic()
                    if choose.random() < 0.2:  # leaves in the middle
                        call(url, "/v1/completions", {**requests[i], "stream": True, "max_tokens": 400},
                             timeout=choose.uniform(0.005, 0.1))
                        continue
                    answer = call(url, "/v1/completions", requests[i])
                    try:
                        wrong = tokens_and_logprobs(answer) != expected[i]
                    except AssertionError as error:
                        wrong = error
                    with lock:
                        latencies.append(time.monotonic() - start)
                        if wrong:
                            problems.append(f"request {i} at {url}: {wrong}")
                    # Now and then long enough for the group to fall asleep.
                    threading.Event().wait(choose.choice([0, 0, 0.01, 0.3]))

            threads = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(problems, [])
            self.assertGreater(len(latencies), ARRIVALS_S)
            print(f"{len(latencies)} requests, slowest {max(latencies):.2f} s", file=sys.stderr)
            self.assertEqual(group.stop(), [0] * 4)


class SignalsThatCross(unittest.TestCase):
    def test_a_rank_that_has_lost_another_and_is_told_to_end_still_ends_as_it_should(self):
        with Ranks(WIDEEP, ranks.model_path("dsv3-tiny-mtp"), [0, 0]) as group:
            request = json.dumps({**ranks.requests_of("dsv3-tiny-mtp")[0], "max_tokens": 900, "stream": True})
            connection = ranks.connect(group.urls()[0], ranks.PATIENCE_S)
            # A client that takes its time: the rank waits a moment for it to go.
            connection.request("POST", "/v1/completions", request, {"content-type": "application/json"})
            answer = connection.getresponse()
            group.ranks[1].process.kill()
            ranks.await_true(lambda: "the step failed" in group.ranks[0].log(), group.ranks[0].log)
            group.ranks[0].process.send_signal(signal.SIGTERM)
            self.assertEqual(group.ranks[0].end(), ranks.EXIT_GROUP_ENDED, group.ranks[0].log())
            self.assertIn("rank_lost", answer.read().decode())
            connection.close()

    def test_a_rank_that_is_told_to_end_a_moment_before_another_serves_the_others_requests(self):
        request = ranks.requests_of("dsv3-tiny-mtp")[0]
        expected = answers_of_one_rank(WIDEEP, "dsv3-tiny-mtp", [request])[0]
        for nodes in ([0, 0, 0], [0, 0, 1]):
            with Ranks(WIDEEP, ranks.model_path("dsv3-tiny-mtp"), nodes) as group:
                first = group.ranks[2]
                first.process.send_signal(signal.SIGTERM)
                ranks.await_true(lambda: "draining" in first.log(), first.log)
                for url in group.urls()[:2]:
                    self.assertEqual(tokens_and_logprobs(call(url, "/v1/completions", request)), expected)
                for rank in group.ranks[:2]:
                    rank.process.send_signal(signal.SIGTERM)
                self.assertEqual([rank.end() for rank in group.ranks], [0, 0, 0])


def cost_of_waking_ns(times=40):
    """What it costs a thread of this machine to sleep and wake up, and nothing more."""
    before = time.thread_time_ns()
    for _ in range(times):
        time.sleep(0.025)
    return (time.thread_time_ns() - before) / times


class Idle(unittest.TestCase):
    """Promise 3, on the whole program: HTTP, engine and exchange together."""

    def test_a_sleeping_group_costs_nothing_and_wakes_at_once(self):
        seconds = 5
        # 0.1 %, or as much more as this machine is slower than one that wakes up in 40 us.
        cpu_ns_max = max(seconds * 1e9 / 1000, 5 * 5 * seconds * cost_of_waking_ns())
        with Ranks(WIDEEP, ranks.model_path("demo"), [0, 0]) as group:
            request = {"prompt": [5, 6, 7], "max_tokens": 1, "temperature": 0}
            self.assertEqual(call(group.urls()[0], "/v1/completions", request).status, 200)
            pids = [rank.process.pid for rank in group.ranks]
            # The first window may have the end of the request in it, and others on this machine only add to what a rank
            # uses, for as long as they are busy; one that wakes too often by itself does so in every window.
            restless = set(range(len(pids)))
            give_up = time.monotonic() + ranks.PATIENCE_S
            while restless and time.monotonic() < give_up:
                before = [ranks.Usage(pid) for pid in pids]
                time.sleep(seconds)  # this is the time that is measured
                for rank, (pid, start) in enumerate(zip(pids, before)):
                    now = ranks.Usage(pid)
                    wake_ups, cpu_ns = now.wake_ups - start.wake_ups, now.cpu_ns - start.cpu_ns
                    print(f"rank {rank}: {wake_ups} wake-ups, {cpu_ns / 1e6:.2f} ms of processor in {seconds} s", file=sys.stderr)
                    if wake_ups <= 5 * seconds and cpu_ns < cpu_ns_max:
                        restless.discard(rank)
            self.assertEqual(restless, set())
            times = []
            for _ in range(15):
                threading.Event().wait(0.05)
                start = time.monotonic()
                self.assertEqual(call(group.urls()[1], "/v1/completions", request).status, 200)
                times.append(time.monotonic() - start)
            print(f"a request wakes the group and is answered in {sorted(times)[7] * 1000:.1f} ms (median)", file=sys.stderr)


class LeaderWorkerSet(unittest.TestCase):
    def test_pods_find_each_other_by_their_environment_and_end_together(self):
        name, port = "dsv3-tiny-bf16", self.enterContext(ranks.HeldPort()).number
        request = ranks.requests_of(name)[0]
        expected = answers_of_one_rank(WIDEEP, name, [request])[0]
        pods = [Serve(WIDEEP, ranks.model_path(name), "--enable-expert-parallel", "--data-parallel-rpc-port", port,
                      environment={"LWS_LEADER_ADDRESS": "localhost", "LWS_GROUP_SIZE": "3", "LWS_WORKER_INDEX": str(index)})
                for index in range(3)]
        try:
            for pod in pods:
                pod.await_ready()
            for pod in pods:
                self.assertEqual(tokens_and_logprobs(call(pod.url, "/v1/completions", request)), expected)
            pods[1].process.kill()
            for pod in (pods[0], pods[2]):
                self.assertEqual(pod.end(), ranks.EXIT_GROUP_ENDED, pod.log())
                self.assertIn("rank 1 lost", pod.log())
        finally:
            for pod in pods:
                pod.abandon()

    def test_half_an_environment_is_a_mistake(self):
        result = subprocess.run([WIDEEP, "serve", "x"], env={**os.environ, "LWS_GROUP_SIZE": "2"}, capture_output=True, text=True,
                                timeout=60)
        self.assertEqual(result.returncode, 2)
        self.assertIn("LWS_LEADER_ADDRESS", result.stderr)


class Mistakes(unittest.TestCase):
    def test_a_rank_with_other_numbers_is_refused_with_both_sides_named(self):
        def rank(index, *arguments):
            return Serve(WIDEEP, ranks.model_path("dsv3-tiny-bf16"), "--data-parallel-size", 2, "--data-parallel-rank", index,
                         "--enable-expert-parallel", "--data-parallel-address", f"unix:{folder}/meeting", *arguments)
        with tempfile.TemporaryDirectory() as folder:
            leader, other = rank(0), rank(1, "--quantization", "int8")
            try:
                self.assertNotEqual(other.end(), 0)
                self.assertIn("experts=bf16", other.log())
                self.assertIn("experts=int8", other.log())
                self.assertIsNone(leader.process.poll(), "the leader waits for the right one")
            finally:
                leader.abandon()
                other.abandon()

    def test_flags_that_cannot_be_are_named(self):
        for arguments, words in [(["--data-parallel-size", "4", "--data-parallel-rank", "4"], "--data-parallel-rank 4"),
                                 (["--data-parallel-size", "2", "--data-parallel-start-rank", "1"], "--data-parallel-size-local"),
                                 (["--enable-eplb"], "--enable-eplb is not implemented"),
                                 (["--data-parallel-size", "0K", "--data-parallel-size-local", "9999"], "--data-parallel-size 9999")]:
            result = subprocess.run([WIDEEP, "serve", "x", *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
