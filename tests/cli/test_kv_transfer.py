"""Prefill and decode apart: two `wideep serve` and a `wideep sidecar`, against one rank alone. Argument: the binary."""
import concurrent.futures
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
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from test_cli import GOLDEN, PATIENCE_S, ROOT, WIDEEP, Server, post, run

MODEL = GOLDEN / "dsv3-tiny-bf16"


def config(role, **more):
    return ["--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector", "kv_role": role, **more})]


def prefill_server(*arguments, model=MODEL, **more):
    return Server(model, "--threads", "1", "--kv-port", "0", *config("kv_producer", **more), *arguments)


def decode_server(*arguments, model=MODEL, **more):
    return Server(model, "--threads", "1", *config("kv_consumer", **more), *arguments)


class Sidecar:
    """`wideep sidecar` in front of a decode server, ended with SIGTERM."""

    def __init__(self, decode, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        ready = pathlib.Path(self.folder.name) / "url"
        self.process = subprocess.Popen([WIDEEP, "sidecar", "--port", "0", "--ready-file", ready, "--engine",
                                         decode.url.removeprefix("http://"), "--allow-prefill", "127.0.0.1", *arguments])
        give_up = time.monotonic() + PATIENCE_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError("the sidecar did not become ready")
            time.sleep(0.02)
        self.url = ready.read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)
        self.folder.cleanup()


def post_through(sidecar, prefill, path, body):
    headers = {"content-type": "application/json", "x-prefiller-host-port": prefill.url.removeprefix("http://")}
    request = urllib.request.Request(sidecar.url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or "{}")


def stream_through(sidecar, prefill, path, body):
    headers = {"content-type": "application/json", "x-prefiller-host-port": prefill.url.removeprefix("http://")}
    text, usage = "", None
    with urllib.request.urlopen(urllib.request.Request(sidecar.url + path, json.dumps(body).encode(), headers),
                                timeout=PATIENCE_S) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[len("data: "):])
            usage = event.get("usage") or usage
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return text, usage


class Leaver:
    """A request whose client goes away before the answer."""

    def __init__(self, url, body, prefill=None):
        headers = {"content-type": "application/json"}
        if prefill is not None:
            headers["x-prefiller-host-port"] = prefill.url.removeprefix("http://")
        self.connection = http.client.HTTPConnection(urllib.parse.urlparse(url).netloc, timeout=PATIENCE_S)
        self.connection.request("POST", "/v1/completions", json.dumps(body), headers)

    def leave(self):
        self.connection.close()


class HeldAnswer:
    """Stands between a sidecar and a prefill server: the request goes on, the answer waits until the sidecar has hung up."""

    def __init__(self, server):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.server = urllib.parse.urlparse(server.url)
        self.has_answer = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            asker, _ = self.listener.accept()
            asker.settimeout(PATIENCE_S)
            with asker, socket.create_connection((self.server.hostname, self.server.port), PATIENCE_S) as answerer:
                threading.Thread(target=self.read, args=(answerer,)).start()
                while request := asker.recv(65536):
                    answerer.sendall(request)
                assert self.has_answer.is_set()
                asker.sendall(self.answer)
        except (OSError, AssertionError) as error:
            self.error = error

    def read(self, answerer):
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += answerer.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length"))
        while len(body) < length:
            more = answerer.recv(65536)
            body += more
            answer += more
        self.answer = answer
        self.has_answer.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.listener.close()


def metric(server, name):
    """The sum over all label sets."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=PATIENCE_S) as response:
        lines = response.read().decode().splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " "))]
    if not values:
        raise AssertionError(f"no metric {name}")
    return sum(values)


def eventually(condition, what):
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError("never came: " + what)
        time.sleep(0.02)


def blocks_are_free(server):
    with urllib.request.urlopen(server.url + "/metrics", timeout=PATIENCE_S) as response:
        text = response.read().decode()
    total = next(int(line.split('num_gpu_blocks="')[1].split('"')[0]) for line in text.splitlines()
                 if line.startswith("vllm:cache_config_info"))
    return metric(server, "wideep:kv_blocks_free") == total


def choice(answer):
    first = answer["choices"][0]
    return first["token_ids"], first["logprobs"], first["finish_reason"]


def request(prompt, **more):
    return {"prompt": prompt, "max_tokens": 24, "temperature": 0, "logprobs": 2, "return_token_ids": True, **more}


class KvTransfer(unittest.TestCase):
    def check_same_tokens(self, *key, transport, prefill_arguments=(), decode_arguments=()):
        prompts = [prompt["input_ids"] for prompt in json.loads((MODEL / "expected/golden.json").read_text())["prompts"]]
        prompts += [[(7 * i + n) % 500 for i in range(n)] for n in (1, 64, 65, 200)]
        with Server(MODEL, "--threads", "1") as alone:
            expected = [post(alone.url + "/v1/completions", request(prompt, seed=3, temperature=t))[1]
                        for prompt in prompts for t in (0, 0.9)]
        extra = {"kv_connector_extra_config": {"backends": [transport]}}
        with prefill_server(*key, *prefill_arguments, **extra) as prefill, \
                decode_server(*key, *decode_arguments, **extra) as decode, Sidecar(decode) as sidecar:
            answers = []
            for prompt in prompts:
                for t in (0, 0.9):
                    status, answer = post_through(sidecar, prefill, "/v1/completions", request(prompt, seed=3, temperature=t))
                    self.assertEqual(status, 200, answer)
                    answers.append(answer)
            self.assertEqual([choice(answer) for answer in answers], [choice(answer) for answer in expected])
            self.assertGreater(metric(decode, "vllm:external_prefix_cache_hits_total"), 0)
            self.assertGreater(metric(decode, "wideep:kv_pulled_bytes_total"), 0)
            self.assertEqual(metric(decode, "vllm:nixl_num_failed_transfers_total"), 0)
            eventually(lambda: blocks_are_free(prefill), "all blocks of the prefill rank free")
            eventually(lambda: blocks_are_free(decode), "all blocks of the decode rank free")
            self.assertEqual(metric(prefill, "wideep:kv_leases"), 0)
        self.assertEqual((prefill.status, decode.status), (0, 0))

    def test_tokens_and_logprobs_are_those_of_one_rank_over_shared_memory(self):
        self.check_same_tokens(transport="shm")

    def test_they_are_so_over_tcp_with_a_key(self):
        with tempfile.NamedTemporaryFile("w") as key:
            key.write("a secret of some length\n")
            key.flush()
            self.check_same_tokens("--kv-key-file", key.name, transport="tcp")

    def test_streams_come_through_and_many_at_once(self):
        with prefill_server() as prefill, decode_server() as decode, Sidecar(decode) as sidecar:
            prompts = [[(3 * i + n) % 500 for i in range(60 + n)] for n in range(12)]
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                answers = list(pool.map(lambda p: post_through(sidecar, prefill, "/v1/completions", request(p)), prompts))
            for prompt, (status, answer) in zip(prompts, answers):
                self.assertEqual(status, 200, answer)
                self.assertEqual(choice(answer), choice(post(prefill.url + "/v1/completions", request(prompt))[1]))
            eventually(lambda: blocks_are_free(prefill) and blocks_are_free(decode), "all blocks free")

    def test_a_prefill_group_of_two_ranks_behind_one_door(self):
        group = ["--data-parallel-size", "2", "--enable-expert-parallel"]
        prompts = [[(5 * i + n) % 500 for i in range(50 + 9 * n)] for n in range(8)]
        with Server(MODEL, "--threads", "1") as alone:
            expected = [choice(post(alone.url + "/v1/completions", request(prompt))[1]) for prompt in prompts]
        with prefill_server(*group) as prefill, decode_server() as decode, Sidecar(decode) as sidecar:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda p: post_through(sidecar, prefill, "/v1/completions", request(p)), prompts))
            self.assertEqual([choice(answer) for _, answer in answers], expected)
            self.assertEqual(metric(decode, "vllm:external_prefix_cache_hits_total"), sum(len(p) - 1 for p in prompts))
            eventually(lambda: metric(prefill, "wideep:kv_leases") == 0, "no lease is left")

    def test_chats_of_the_demo_model_streamed_and_whole(self):
        demo = ROOT / "models/demo"
        chat = {"messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
                "max_tokens": 40, "temperature": 0.7, "seed": 5, "logprobs": True, "top_logprobs": 2}
        with prefill_server(model=demo) as prefill, decode_server(model=demo) as decode, Sidecar(decode) as sidecar:
            expected = post(prefill.url + "/v1/chat/completions", chat)[1]
            status, answer = post_through(sidecar, prefill, "/v1/chat/completions", chat)
            self.assertEqual(status, 200, answer)
            self.assertEqual(answer["choices"], expected["choices"])
            self.assertGreater(metric(decode, "vllm:external_prefix_cache_hits_total"), 0)
            text, usage = stream_through(sidecar, prefill, "/v1/chat/completions",
                                         {**chat, "stream": True, "stream_options": {"include_usage": True}})
            self.assertEqual(text, expected["choices"][0]["message"]["content"])
            self.assertEqual(usage["prompt_tokens"], expected["usage"]["prompt_tokens"])
            eventually(lambda: blocks_are_free(prefill) and blocks_are_free(decode), "all blocks free")

    def test_a_client_that_leaves_frees_both_sides_at_once(self):
        # Leases of an hour: nothing ends by itself.
        extra = {"kv_connector_extra_config": {"kv_lease_duration": 3600}}
        with prefill_server(**extra) as prefill, decode_server("--max-num-seqs", "1", **extra) as decode, Sidecar(decode) as sidecar:
            with urllib.request.urlopen(decode.url + "/v1/models", timeout=PATIENCE_S) as response:
                context = json.load(response)["data"][0]["max_model_len"]
            running = Leaver(decode.url, request([1, 2, 3], max_tokens=context - 3, ignore_eos=True))
            eventually(lambda: metric(decode, "vllm:num_requests_running") == 1, "the first request runs")
            waiting = Leaver(sidecar.url, request(list(range(200))), prefill)
            eventually(lambda: metric(decode, "vllm:num_requests_waiting") == 1, "the second one waits with its ticket")
            self.assertEqual(metric(prefill, "wideep:kv_leases"), 1)
            waiting.leave()
            eventually(lambda: metric(prefill, "wideep:kv_leases") == 0, "its lease ends")
            running.leave()
            eventually(lambda: blocks_are_free(prefill) and blocks_are_free(decode), "all blocks free")
            self.assertEqual(metric(prefill, "vllm:nixl_num_kv_expired_reqs_total"), 0)

    def test_a_client_that_leaves_between_the_legs_frees_the_prefill_side_at_once(self):
        for group in [], ["--data-parallel-size", "2", "--enable-expert-parallel"]:
            extra = {"kv_connector_extra_config": {"kv_lease_duration": 3600}}
            with self.subTest(group=group), prefill_server(**extra) as prefill, \
                    decode_server(*group, **extra) as decode, Sidecar(decode) as sidecar:
                with HeldAnswer(prefill) as held:
                    leaver = Leaver(sidecar.url, request(list(range(200))), held)
                    self.assertTrue(held.has_answer.wait(PATIENCE_S))
                    self.assertEqual(metric(prefill, "wideep:kv_leases"), 1)
                    leaver.leave()
                self.assertIsNone(held.error)
                eventually(lambda: metric(prefill, "wideep:kv_leases") == 0, "its lease ends")
                eventually(lambda: blocks_are_free(prefill), "all blocks free")
                self.assertEqual(metric(prefill, "vllm:nixl_num_kv_expired_reqs_total"), 0)
                forged = {"do_remote_prefill": True, "do_remote_decode": False, "ticket": "AAAA"}
                status, answer = post(decode.url + "/kv_transfer/release", {"kv_transfer_params": forged})
                self.assertEqual((status, answer["error"]["param"]), (400, "kv_transfer_params"))

    def test_a_client_that_leaves_while_the_decode_rank_is_down_frees_the_prefill_side_when_it_is_back(self):
        extra = {"kv_connector_extra_config": {"kv_lease_duration": 3600}}
        # The decode rank's port stays ours: nobody listens there, and who names it gets it.
        with socket.socket() as port, prefill_server(**extra) as prefill:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port.bind(("127.0.0.1", 0))
            at_port = ["--port", port.getsockname()[1]]
            with decode_server(*at_port, **extra) as decode, Sidecar(decode) as sidecar:
                with HeldAnswer(prefill) as held:
                    leaver = Leaver(sidecar.url, request(list(range(200))), held)
                    self.assertTrue(held.has_answer.wait(PATIENCE_S))
                    decode.process.kill()
                    decode.process.wait()
                    leaver.leave()
                self.assertIsNone(held.error)
                self.assertEqual(metric(prefill, "wideep:kv_leases"), 1)
                with decode_server(*at_port, **extra):
                    eventually(lambda: metric(prefill, "wideep:kv_leases") == 0, "its lease ends")
                    eventually(lambda: blocks_are_free(prefill), "all blocks free")
                    self.assertEqual(metric(prefill, "vllm:nixl_num_kv_expired_reqs_total"), 0)

    def test_a_prefill_rank_that_dies_between_the_legs(self):
        params = {"do_remote_decode": True, "do_remote_prefill": False}
        prompt = list(range(100))
        for policy, expected in (("fail", 503), ("recompute", 200)):
            with decode_server(kv_load_failure_policy=policy) as decode:
                with prefill_server() as prefill:
                    status, answer = post(prefill.url + "/v1/completions",
                                          {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": params})
                    self.assertEqual(status, 200, answer)
                    prefill.process.kill()
                    prefill.process.wait()
                status, second = post(decode.url + "/v1/completions",
                                      request(prompt, kv_transfer_params=answer["kv_transfer_params"]))
                self.assertEqual(status, expected, second)
                if policy == "recompute":
                    self.assertEqual(len(second["choices"][0]["token_ids"]), 24)
                eventually(lambda: blocks_are_free(decode), "all blocks free")

    def test_tickets_that_were_tampered_with_never_decode(self):
        ask = {"do_remote_decode": True, "do_remote_prefill": False}
        prompt, other = list(range(100)), list(range(1, 101))
        with prefill_server() as prefill, decode_server() as decode:
            first = post(prefill.url + "/v1/completions", {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": ask})[1]
            params = first["kv_transfer_params"]
            middle = len(params["ticket"]) // 2
            forged = params["ticket"][:middle] + ("A" if params["ticket"][middle] != "A" else "B") + params["ticket"][middle + 1:]
            for body in (request(other, kv_transfer_params=params), request(prompt, kv_transfer_params={**params, "ticket": forged}),
                         request(prompt, kv_transfer_params={k: v for k, v in params.items() if k != "ticket"})):
                status, answer = post(decode.url + "/v1/completions", body)
                self.assertEqual(status, 400, answer)
                self.assertIn("ticket", answer["error"]["message"])
            # What stands beside the ticket is for the eye: it leads nowhere.
            misled = {**params, "remote_host": "10.255.255.1", "remote_block_ids": [[0]], "remote_port": 1}
            self.assertEqual(post(decode.url + "/v1/completions", request(prompt, kv_transfer_params=misled))[0], 200)
            # Once used, never again.
            self.assertEqual(post(decode.url + "/v1/completions", request(other[:50] + prompt[50:]))[0], 200)
            self.assertEqual(post(prefill.url + "/v1/completions", request(prompt, kv_transfer_params=params))[0], 400)

    def test_sides_that_do_not_fit_are_refused_with_both_named(self):
        with prefill_server("--block-size", "32") as prefill, decode_server("--block-size", "64") as decode, \
                Sidecar(decode) as sidecar:
            status, answer = post_through(sidecar, prefill, "/v1/completions", request(list(range(20))))
            self.assertEqual(status, 400, answer)
            for side in ("32 tokens a block", "64 tokens a block"):
                self.assertIn(side, answer["error"]["message"])

    def test_a_lease_that_nobody_pulls_expires(self):
        extra = {"kv_lease_duration": 1}
        with prefill_server(kv_connector_extra_config=extra) as prefill:
            post(prefill.url + "/v1/completions", {"prompt": list(range(100)), "max_tokens": 1,
                                                   "kv_transfer_params": {"do_remote_decode": True}})
            eventually(lambda: metric(prefill, "vllm:nixl_num_kv_expired_reqs_total") == 1, "the lease expires")
            eventually(lambda: blocks_are_free(prefill), "all blocks free")


class Flags(unittest.TestCase):
    def test_what_is_not_known_is_refused_by_name(self):
        good = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
        for change, word in (({"kv_connector": "LMCacheConnector"}, "LMCacheConnector"), ({"kv_role": "both"}, "kv_role"),
                             ({"kv_rank": 1}, "kv_rank"), ({"kv_load_failure_policy": "hope"}, "kv_load_failure_policy"),
                             ({"kv_buffer_device": "cuda"}, "kv_buffer_device"),
                             ({"kv_connector_extra_config": {"backends": ["UCX"]}}, "UCX"),
                             ({"kv_connector_extra_config": {"engine_ttl": 1}}, "engine_ttl")):
            result = run("serve", MODEL, "--kv-transfer-config", json.dumps({**good, **change}))
            self.assertEqual(result.returncode, 2)
            self.assertIn(word, result.stderr)
        self.assertIn("--kv-transfer-config", run("serve", MODEL, "--kv-transfer-config", "{").stderr)

    def test_beyond_this_host_a_key_is_needed_that_nobody_else_can_read(self):
        outside = ["--kv-host", "0.0.0.0", "--kv-advertise-host", "10.0.0.1", "--kv-port", "0", *config("kv_producer")]
        self.assertIn("--kv-key-file", run("serve", MODEL, *outside).stderr)
        with tempfile.NamedTemporaryFile("w") as key:
            key.write("a secret of some length\n")
            key.flush()
            os.chmod(key.name, 0o644)
            self.assertIn("chmod 600", run("serve", MODEL, *outside, "--kv-key-file", key.name).stderr)

    def test_a_server_without_the_flag_takes_no_parameters(self):
        with Server(MODEL, "--threads", "1") as server:
            status, answer = post(server.url + "/v1/completions", {"prompt": [1], "kv_transfer_params": {"do_remote_decode": True}})
            self.assertEqual(status, 400)
            self.assertEqual(answer["error"]["param"], "kv_transfer_params")


if __name__ == "__main__":
    signal.alarm(1780)
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
