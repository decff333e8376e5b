"""One API over two hosts: --headless on the second, in a network of its own, and a cable between them that is cut under load.

Arguments: the binary, the program that makes networks and cable, then unittest's.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import ranks
from doors import MODEL, WIDEEP, Door, Load
from ranks import Serve, answers_of_one_rank, ask_all, await_true, call, tokens_and_logprobs

CABLE_PROGRAM = sys.argv[2]
# A machine that others use may take so long to run us at all; what else would end a wait takes longer.
SLACK_S = 30
# What promise 2 says of a cut link: the liveness deadline, and beats to look at it.
NOTICED_WITHIN_S = 4


class Cable:
    """Two networks; None of it where they are not permitted."""

    def __init__(self):
        self.process = subprocess.Popen([CABLE_PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.is_of = json.loads(self.process.stdout.readline())

    def network(self, host):
        """Words in front of a command that runs it there."""
        return ["nsenter", f"--net={self.is_of['networks'][host]}"]

    def do(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def key_in(folder):
    secret = pathlib.Path(folder) / "key"
    secret.write_text("a secret of the two hosts\n")
    secret.chmod(0o600)
    return secret


def stop_all(servers):
    """Both at once: who stops first leaves somebody behind, who would start again."""
    for server in servers:
        server.process.send_signal(signal.SIGTERM)
    return [server.end() for server in servers]


class OneDoor(unittest.TestCase):
    """On one machine: --node-id makes two hosts of it, which meet at a Unix socket."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.common = ["--data-parallel-address", f"unix:{folder.name}/meeting", "--data-parallel-key-file", key_in(folder.name)]

    def head(self, size, local, *arguments):
        return self.start(Door(size, "--data-parallel-size-local", local, *self.common, "--node-id", 0, *arguments))

    def headless(self, size, local, start, *arguments):
        return self.start(Door(size, "--data-parallel-size-local", local, "--data-parallel-start-rank", start, "--headless",
                               *self.common, "--node-id", start, *arguments))

    def start(self, door):
        self.addCleanup(door.abandon)
        return door

    def await_engines(self, door, engines):
        await_true(lambda: door.ready.exists() and call(door.await_ready().url, "/health").status == 200
                   and door.engines() == engines, lambda: f"ranks {engines} behind the door\n{door.log()}")

    def test_it_has_the_ranks_of_three_hosts_one_of_them_with_one_rank(self):
        requests = ranks.requests_of(MODEL)
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)
        # The head's own part is one rank: it is no rank itself.
        head, two, last = self.head(4, 1), self.headless(4, 2, 1), self.headless(4, 1, 3)
        self.await_engines(head, [0, 1, 2, 3])
        answers = ask_all([(head.url, request) for request in requests * 3])
        for request, answer, wanted in zip(requests * 3, answers, expected * 3):
            self.assertEqual(tokens_and_logprobs(answer), wanted, request)
        for rank in range(4):
            answer = call(head.url, "/v1/completions", requests[0], headers={"x-data-parallel-rank": str(rank)})
            self.assertEqual(tokens_and_logprobs(answer), expected[0])
        for line in call(head.url, "/metrics").body.splitlines():
            if line.startswith("vllm:generation_tokens_total"):
                self.assertGreater(float(line.rsplit(" ", 1)[1]), 0, "no rank was left out")
        self.assertEqual([document["rank"] for document in call(head.url, "/expert_load").json()["ranks"]], [0, 1, 2, 3])
        self.assertEqual(stop_all([head, two, last]), [0, 0, 0])
        for door in (head, two, last):
            self.assertEqual(door.remains(), [])

    def test_what_happens_to_the_other_host(self):
        requests = ranks.requests_of(MODEL)
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)
        head, other = self.head(2, 1), self.headless(2, 1, 1)
        self.await_engines(head, [0, 1])

        def is_whole():
            self.await_engines(head, [0, 1])
            for rank in ("0", "1"):
                answer = call(head.url, "/v1/completions", requests[0], headers={"x-data-parallel-rank": rank})
                self.assertEqual(tokens_and_logprobs(answer), expected[0])

        is_whole()
        restarts = head.log().count("starts again")
        os.kill(other.pids()[1], signal.SIGKILL)
        await_true(lambda: head.log().count("starts again") > restarts, "the group ends on both hosts")
        self.assertIn("rank 1 lost", head.log())
        is_whole()
        # The launcher alone is stopped: its rank is well, and nobody can call it.
        other.process.send_signal(signal.SIGSTOP)
        await_true(lambda: call(head.url, "/v1/completions", requests[0], headers={"x-data-parallel-rank": "1"}).status == 503,
                   "the door has no rank 1")
        self.assertEqual(tokens_and_logprobs(call(head.url, "/v1/completions", requests[0])), expected[0])
        other.process.send_signal(signal.SIGCONT)
        is_whole()
        restarts = head.log().count("starts again")
        other.process.kill()
        other.process.wait()
        await_true(lambda: head.log().count("starts again") > restarts, "the ranks of a launcher die with it")
        other = self.headless(2, 1, 1)
        is_whole()
        self.assertEqual(stop_all([head, other]), [0, 0])

    def test_pods_of_one_rank_have_one_door_at_their_leader(self):
        requests = ranks.requests_of(MODEL)
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)

        def pod(index, *arguments):
            environment = {"LWS_LEADER_ADDRESS": "localhost", "LWS_GROUP_SIZE": "3", "LWS_WORKER_INDEX": str(index)}
            return self.start(Serve(WIDEEP, ranks.model_path(MODEL), "--enable-expert-parallel", "--data-parallel-size-local", 1,
                                    *self.common, "--node-id", index, *arguments, environment=environment))

        leader, workers = pod(0), [pod(1, "--headless"), pod(2, "--headless")]
        await_true(lambda: leader.ready.exists(), leader.log)
        leader.await_ready()
        for rank in (0, 1, 2):
            def answer():
                return call(leader.url, "/v1/completions", requests[rank], headers={"x-data-parallel-rank": str(rank)})
            await_true(lambda: answer().status == 200, leader.log)
            self.assertEqual(tokens_and_logprobs(answer()), expected[rank])
        self.assertEqual(stop_all([leader, *workers]), [0, 0, 0])

    def test_ranks_without_expert_parallelism_share_a_door_too(self):
        request = ranks.requests_of(MODEL)[0]
        expected = answers_of_one_rank(WIDEEP, MODEL, [request])[0]
        common = ["--data-parallel-size", 2, "--data-parallel-size-local", 1, *self.common]
        head = self.start(Serve(WIDEEP, ranks.model_path(MODEL), *common)).await_ready()
        other = self.start(Serve(WIDEEP, ranks.model_path(MODEL), *common, "--headless", "--data-parallel-start-rank", 1))
        other.await_ready()
        await_true(lambda: call(head.url, "/v1/completions", request, headers={"x-data-parallel-rank": "1"}).status == 200, "rank 1")
        self.assertEqual(tokens_and_logprobs(call(head.url, "/v1/completions", request, headers={"x-data-parallel-rank": "1"})), expected)
        self.assertEqual(stop_all([head, other]), [0, 0])

    def test_a_host_with_another_key_does_not_get_in(self):
        with tempfile.TemporaryDirectory() as folder:
            wrong = pathlib.Path(folder) / "wrong"
            wrong.write_text("a secret of somebody else\n")
            wrong.chmod(0o600)
            head = self.head(2, 1)
            other = self.headless(2, 1, 1, "--data-parallel-key-file", wrong)
            await_true(lambda: "is it the same key" in head.log() and "is it the same key" in other.log(), "both say so")
            self.assertFalse(head.ready.exists())


class CutCable(unittest.TestCase):
    def setUp(self):
        self.cable = Cable()
        self.addCleanup(self.cable.close)
        if "unavailable" in self.cable.is_of:
            self.skipTest("no network namespaces here: " + self.cable.is_of["unavailable"])
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.common = ["--data-parallel-address", self.cable.is_of["addresses"][0], "--data-parallel-key-file", key_in(folder.name)]

    def start(self, server):
        self.addCleanup(server.abandon)
        return server

    def lost_by(self, log, rank):
        """What rank's log says of the ranks that it lost."""
        return [line for line in log.splitlines() if line.startswith(f"rank {rank}: ") and " lost (" in line]

    def test_one_door_over_both_hosts_until_the_cable_is_cut_and_after_it_is_mended(self):
        common = ["--data-parallel-size-local", 2, *self.common]
        head = self.start(Door(4, *common, "--uds", f"{self.folder}/api", before=self.cable.network(0)))
        other = self.start(Door(4, *common, "--headless", "--data-parallel-start-rank", 2, before=self.cable.network(1)))
        head.await_ready()
        await_true(lambda: head.engines() == [0, 1, 2, 3], "the ranks of both hosts")
        requests = ranks.requests_of(MODEL)
        expected = answers_of_one_rank(WIDEEP, MODEL, requests)
        for i, request in enumerate(requests * 2):
            answer = call(head.url, "/v1/completions", request, headers={"x-data-parallel-rank": str(i % 4)})
            self.assertEqual(tokens_and_logprobs(answer), expected[i % len(requests)])
        metrics = call(head.url, "/metrics").body
        self.assertIn('engine="3",peer="0",node="0",transport="tcp"} 1', metrics)
        pids = [*head.pids().values(), *other.pids().values()]
        with Load(head) as load:
            await_true(lambda: len(load.outcomes) > 40, "load")
            self.cable.do("cut")
            cut = time.monotonic()
            sides = [(head, rank, "(2|3)") for rank in (0, 1)] + [(other, rank, "(0|1)") for rank in (2, 3)]
            for server, rank, others in sides:
                await_true(lambda server=server, rank=rank: self.lost_by(server.log(), rank), f"rank {rank} notices")
                self.assertRegex(self.lost_by(server.log(), rank)[0], f"rank {others} lost")
            noticed = time.monotonic() - cut
            print(f"every rank named one of the other host {noticed:.1f} s after the cut", file=sys.stderr)
            self.assertLess(noticed, NOTICED_WITHIN_S + SLACK_S)
            await_true(lambda: not any(ranks.exists(pid) for pid in pids), "all ranks have ended")
            # The door holds the other host for lost by its own beats, which may be a moment later than the ranks.
            await_true(lambda: call(head.url, "/health").status == 503, "the door has nobody", NOTICED_WITHIN_S + SLACK_S)
            self.cable.do("mend")
            await_true(lambda: head.engines() == [0, 1, 2, 3], "the group is back")
            count = len(load.outcomes)
            await_true(lambda: len(load.outcomes) > count + 20, "load on the new group")
        load.check(self, "cut")
        self.assertEqual(tokens_and_logprobs(call(head.url, "/v1/completions", requests[0])), expected[0])
        pids = [*head.pids().values(), *other.pids().values()]
        self.assertEqual(stop_all([head, other]), [0, 0])
        self.assertEqual([pid for pid in pids if ranks.exists(pid)], [])
        self.assertEqual([*head.remains(), *other.remains()], [])

    def test_ranks_that_are_started_one_by_one_exit_with_status_4(self):
        pair = [self.start(Serve(WIDEEP, ranks.model_path(MODEL), "--data-parallel-size", 2, "--data-parallel-rank", rank,
                                 "--enable-expert-parallel", *self.common, "--uds", f"{self.folder}/api-{rank}",
                                 before=self.cable.network(rank))) for rank in (0, 1)]
        for server in pair:
            server.await_ready()
        self.cable.do("cut")
        cut = time.monotonic()
        for rank, server in enumerate(pair):
            self.assertEqual(server.end(), ranks.EXIT_GROUP_ENDED, server.log())
            self.assertIn(f"rank {1 - rank} lost", server.log())
        self.assertLess(time.monotonic() - cut, NOTICED_WITHIN_S + SLACK_S)

    @unittest.skipUnless(ranks.is_long(), "six attempts with pauses between them take half a minute: WIDEEP_LONG=1")
    def test_a_launcher_whose_other_host_does_not_come_gives_up_with_status_4(self):
        common = ["--data-parallel-size-local", 1, *self.common, "--data-parallel-start-timeout", 2]
        head = self.start(Door(2, *common, "--uds", f"{self.folder}/api", before=self.cable.network(0)))
        await_true(lambda: head.process.poll() is not None, "it gives up")
        self.assertEqual(head.end(), ranks.EXIT_GROUP_ENDED, head.log())
        self.assertIn("ranks 1 have not come", head.log())
        self.assertEqual(head.remains(), [])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
