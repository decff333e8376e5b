"""One command for a whole group: the door that balances, ranks that are killed and stopped under load, an end without remains.

Arguments: the binary, then unittest's.
"""
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import unittest

import ranks
from doors import MODEL, WIDEEP, Door, Load
from ranks import Serve, answers_of_one_rank, await_true, call, tokens_and_logprobs


class OneCommand(unittest.TestCase):
    def test_it_balances_and_gives_the_tokens_of_one_rank(self):
        requests = ranks.requests_of("demo")
        expected = answers_of_one_rank(WIDEEP, "demo", requests)
        with Door(4, model="demo") as door:
            answers = ranks.ask_all([(door.url, request) for request in requests * 3])
            for request, answer, wanted in zip(requests * 3, answers, expected * 3):
                self.assertEqual(tokens_and_logprobs(answer), wanted, request)
            for rank in range(4):
                answer = call(door.url, "/v1/completions", requests[0], headers={"x-data-parallel-rank": str(rank)})
                self.assertEqual(tokens_and_logprobs(answer), expected[0])
            self.assertEqual(call(door.url, "/v1/completions", requests[0], headers={"x-data-parallel-rank": "9"}).status, 400)
            self.check_metrics(call(door.url, "/metrics").body)
            self.check_expert_load(call(door.url, "/expert_load").json())
            self.assertEqual(call(door.url, "/v1/models").json()["data"][0]["id"], "demo")
            self.check_end(door)

    def check_metrics(self, text):
        families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(len(families), len(set(families)), "each family once")
        samples = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")]
        self.assertEqual(len(samples), len(set(samples)), "each series once")
        values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and line[0] != "#"}
        for rank in range(4):
            labels = f'{{model_name="demo",engine="{rank}"'
            self.assertGreater(values[f"vllm:generation_tokens_total{labels}}}"], 0, "no rank was left out")
            self.assertGreater(values[f'wideep:weight_bytes{labels},kind="experts"}}'], 0)
            self.assertIn(f'wideep:peer_info{labels},peer="{(rank + 1) % 4}",node="0",transport="shm"}}', values)
        experts = [values[f'wideep:weight_bytes{{model_name="demo",engine="{rank}",kind="experts"}}'] for rank in range(4)]
        self.assertEqual(min(experts), max(experts), "32 experts on 4 ranks")

    def check_expert_load(self, load):
        self.assertEqual([document["rank"] for document in load["ranks"]], [0, 1, 2, 3])
        self.assertTrue(0 < load["balancedness"] <= 1)
        received = [sum(row[rank] for row in load["sent"]) for rank in range(4)]
        computed = [sum(layer["rows"][rank] for layer in load["layers"]) for rank in range(4)]
        self.assertEqual(received, computed, "what was sent has been computed")
        self.assertEqual(load["sent_bytes"][0][1], load["sent"][0][1] * load["ranks"][0]["row_bytes"])

    def check_end(self, door):
        pids = door.pids()
        self.assertEqual(sorted(pids), [0, 1, 2, 3])
        self.assertEqual(len(door.remains()), 1)
        self.assertEqual(door.stop(), 0)
        self.assertEqual([pid for pid in pids.values() if ranks.exists(pid)], [])
        self.assertEqual(door.remains(), [])

    def test_each_rank_holds_its_share_only(self):
        def bytes_of(text, kind):
            return [float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                    if line.startswith("wideep:weight_bytes") and f'kind="{kind}"' in line]
        with Door(1) as one, Door(3) as three:
            alone, shared = call(one.url, "/metrics").body, call(three.url, "/metrics").body
            self.assertEqual(sum(bytes_of(shared, "experts")), bytes_of(alone, "experts")[0])
            self.assertEqual(bytes_of(shared, "other"), bytes_of(alone, "other") * 3)

    def test_experts_placed_by_a_recorded_load_and_their_copies_give_the_same_tokens(self):
        requests = ranks.requests_of("demo")
        expected = answers_of_one_rank(WIDEEP, "demo", requests)
        with tempfile.TemporaryDirectory() as folder:
            recorded = pathlib.Path(folder) / "load.json"
            with Door(3, model="demo") as door:
                ranks.ask_all([(door.url, request) for request in requests])
                recorded.write_text(call(door.url, "/expert_load").body)
            before = json.loads(recorded.read_text())["balancedness"]
            for arguments in ([], ["--eplb-config", '{"num_redundant_experts": 7}']):
                with self.subTest(arguments), Door(3, "--expert-load-file", recorded, *arguments, model="demo") as door:
                    answers = ranks.ask_all([(door.url, request) for request in requests])
                    self.assertEqual([tokens_and_logprobs(answer) for answer in answers], expected)
                    load = call(door.url, "/expert_load").json()
                    print(f"balancedness {before:.3f}, placed by load {arguments}: {load['balancedness']:.3f}", file=sys.stderr)
                    self.assertGreater(load["balancedness"], before)

    def test_without_expert_parallelism_ranks_are_independent(self):
        requests = ranks.requests_of(MODEL)[:2]
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)
        server = Serve(WIDEEP, ranks.model_path(MODEL), "--data-parallel-size", 2)
        try:
            server.await_ready()
            for rank in ("0", "1"):
                answer = call(server.url, "/v1/completions", requests[0], headers={"x-data-parallel-rank": rank})
                self.assertEqual(tokens_and_logprobs(answer), expected[0])
            self.assertEqual([load["rank"] for load in call(server.url, "/expert_load").json()["ranks"]], [0, 1])
            self.assertEqual(server.stop(), 0)
        finally:
            server.abandon()

    def test_a_drain_lets_requests_end(self):
        with Door(2) as door:
            request = {"prompt": [5, 6, 7], "max_tokens": 300, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
            answers = []
            thread = threading.Thread(target=lambda: answers.append(call(door.url, "/v1/completions", request)))
            thread.start()
            await_true(lambda: 'vllm:num_requests_running{model_name="dsv3-tiny-mtp",engine="0"} 1' in call(door.url, "/metrics").body
                       or 'vllm:num_requests_running{model_name="dsv3-tiny-mtp",engine="1"} 1' in call(door.url, "/metrics").body
                       or answers, "the request runs")
            self.assertEqual(door.stop(), 0)
            thread.join()
            self.assertEqual(answers[0].status, 200, answers[0].error)
            self.assertEqual(len(answers[0].json()["choices"][0]["token_ids"]), 300)

    def test_a_bad_model_is_told_at_once(self):
        with tempfile.TemporaryDirectory() as empty:
            server = Serve(WIDEEP, empty, "--data-parallel-size", 2, "--enable-expert-parallel")
            try:
                self.assertEqual(server.end(), 3)
                self.assertIn("config.json", server.log())
                self.assertNotIn("starts again", server.log())
            finally:
                server.abandon()

    def test_two_hosts_meet_and_each_has_a_door(self):
        requests = ranks.requests_of(MODEL)
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)
        with tempfile.TemporaryDirectory() as folder:
            secret = pathlib.Path(folder) / "key"
            secret.write_text("a secret of the two hosts\n")
            secret.chmod(0o600)
            common = ["--data-parallel-size-local", 2, "--data-parallel-address", f"unix:{folder}/meeting",
                      "--data-parallel-key-file", secret]
            first = Door(4, *common, "--node-id", 0, "--data-parallel-hybrid-lb")
            second = Door(4, *common, "--node-id", 1, "--data-parallel-start-rank", 2)
            with first, second:
                for i, request in enumerate(requests):
                    door = (first, second)[i % 2]
                    self.assertEqual(tokens_and_logprobs(call(door.url, "/v1/completions", request)), expected[i])
                text = call(second.url, "/metrics").body
                self.assertIn('engine="3",peer="0",node="0",transport="tcp"} 1', text)
                self.assertIn('engine="3",peer="2",node="1",transport="shm"} 1', text)
                # One host loses a rank: both sides start again and find each other.
                os.kill(second.pids()[2], signal.SIGKILL)
                for door in (first, second):
                    await_true(lambda door=door: "starts again" in door.log(), "the group ends on both hosts")
                    await_true(door.is_healthy, "the group is back")
                self.assertEqual(tokens_and_logprobs(call(first.url, "/v1/completions", requests[0])), expected[0])


class Faults(unittest.TestCase):
    """A rank is lost under load: every request ends with its tokens or an error that says to try again, the group comes back."""

    def check(self, number):
        with Door(4) as door:
            before = door.pids()
            with Load(door) as load:
                await_true(lambda: len(load.outcomes) > 20, "load")
                os.kill(before[2], number)
                await_true(lambda: "starts again" in door.log(), "the group ends")
                await_true(lambda: not ranks.exists(before[0]) and door.is_healthy(), "the group is back")
                count = len(load.outcomes)
                await_true(lambda: len(load.outcomes) > count + 20, "load on the new group")
            load.check(self, f"signal {number}")
            self.assertEqual(len([pid for pid in before.values() if ranks.exists(pid)]), 0)
            self.assertIn("rank 2 lost", door.log())
            self.assertEqual(door.stop(), 0)
            self.assertEqual(door.remains(), [])

    def test_a_rank_is_killed(self):
        self.check(signal.SIGKILL)

    def test_a_rank_is_stopped(self):
        self.check(signal.SIGSTOP)


class WhileRanksMeet(unittest.TestCase):
    """Three hosts of one rank, played on this one."""

    def host(self, folder, rank, *arguments):
        return Serve(WIDEEP, ranks.model_path(MODEL), "--data-parallel-size", 3, "--data-parallel-size-local", 1, "--node-id", rank,
                     "--enable-expert-parallel", "--data-parallel-address", f"unix:{folder}/meeting", *arguments)

    def test_a_leader_that_is_killed_ends_no_other_host(self):
        with tempfile.TemporaryDirectory() as folder:
            hosts = [self.host(folder, 0), self.host(folder, 1, "--headless", "--data-parallel-start-rank", 1)]
            try:
                await_true(lambda: "rank 1 has come, 2 of 3" in hosts[0].log(), "rank 1 at the meeting")
                os.kill(ranks.children_of(hosts[0].process.pid)[0], signal.SIGKILL)
                hosts.append(self.host(folder, 2, "--headless", "--data-parallel-start-rank", 2))
                hosts[0].await_ready()
                await_true(lambda: call(hosts[0].url, "/v1/completions", {"prompt": [5], "max_tokens": 1},
                                        {"x-data-parallel-rank": "1"}).status == 200, lambda: hosts[1].log())
                self.assertIn("rank 0 lost", hosts[1].log())
            finally:
                for host in hosts:
                    host.abandon()


    @unittest.skipUnless(ranks.is_long(), "its launcher waits 20 s before it believes it")
    def test_a_rank_that_is_stopped_alone_on_its_host_is_started_again(self):
        with tempfile.TemporaryDirectory() as folder:
            hosts = [self.host(folder, 0), *(self.host(folder, rank, "--headless", "--data-parallel-start-rank", rank) for rank in (1, 2))]
            try:
                hosts[0].await_ready()
                def answers():
                    return all(call(hosts[0].url, "/v1/completions", {"prompt": [5], "max_tokens": 1},
                                    {"x-data-parallel-rank": str(rank)}).status == 200 for rank in range(3))
                await_true(answers, "all ranks")
                os.kill(ranks.children_of(hosts[2].process.pid)[0], signal.SIGSTOP)
                await_true(lambda: "rank 2: unhealthy" in hosts[2].log(), lambda: hosts[2].log())
                await_true(answers, "all ranks again")
            finally:
                for host in hosts:
                    host.abandon()


class Mistakes(unittest.TestCase):
    def test_flags_that_cannot_be_start_nothing(self):
        for arguments, words in [(["--max-num-seqs", "0"], "--max-num-seqs: at least 1"),
                                 (["--max-num-batched-tokens", "16"], "max_num_batched_tokens (16) is less than max_num_seqs (64)"),
                                 (["--block-size", "24"], "block size 24"), (["--threads", "-1"], "--threads: at least 0"),
                                 (["--quantization", "int8", "--dtype", "float32"], "--dtype float32"),
                                 (["--speculative-config", '{"method":"mtp","num_speculative_tokens":2}'], "num_speculative_tokens 2"),
                                 (["--data-parallel-address", "host:29999"], "a host without a port"),
                                 (["--data-parallel-address", "10.1.2.3", "--data-parallel-rank", "1"], "--data-parallel-key-file"),
                                 (["--data-parallel-host", "10.1.2.3", "--data-parallel-rank", "1"], "--data-parallel-key-file")]:
            server = Serve(WIDEEP, ranks.model_path(MODEL), "--data-parallel-size", 2, "--enable-expert-parallel", *arguments)
            try:
                self.assertEqual(server.end(), 2, server.log())
                self.assertIn(words, server.log())
                self.assertNotIn("group ranks", server.log())
            finally:
                server.abandon()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
