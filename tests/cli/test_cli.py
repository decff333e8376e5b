"""The wideep program from outside: help, mistakes, exit statuses, broken models. Arguments: the binary [a test ...]."""
import asyncio
import concurrent.futures
import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

WIDEEP = sys.argv[1]
ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/data"
PATIENCE_S = 120
# A sanitizer's shadow memory is not our allocation.
MEMORY_BYTES_MAX = 4 << 30
TRAINED_FLOOR, HELD_OUT_FLOOR = 0.97, 0.83


def run(*arguments, **more):
    return subprocess.run([WIDEEP, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE_S, **more)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class Process:
    """A verb of wideep that listens on a free port, or on one that its arguments name; ended with SIGTERM."""

    def __init__(self, verb, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        ready = pathlib.Path(self.folder.name) / "url"
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+")
        self.process = subprocess.Popen([WIDEEP, verb, "--port", "0", "--ready-file", ready, *map(str, arguments)],
                                        stderr=self.log)
        give_up = time.monotonic() + PATIENCE_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.log.seek(0)
                raise AssertionError("it did not become ready:\n" + self.log.read())
            time.sleep(0.02)
        self.url = ready.read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.status = self.process.wait(timeout=PATIENCE_S)
        self.log.close()
        self.folder.cleanup()


class Server(Process):
    def __init__(self, model, *arguments):
        super().__init__("serve", model, "--kv-cache-memory-bytes", "64M", *arguments)


class Help(unittest.TestCase):
    def test_every_verb_is_listed_and_explains_itself(self):
        overview = run("--help").stdout
        for verb in ("serve", "up", "chat", "gateway", "epp", "sidecar", "bench serve", "bench quality", "golden", "make-checkpoint"):
            self.assertIn(verb, overview)
            self.assertIn(f"wideep {verb}", run(*verb.split(), "--help").stdout)

    def test_help_can_be_searched(self):
        text = run("serve", "--help=prefix").stdout
        self.assertIn("--enable-prefix-caching", text)
        self.assertNotIn("--api-key-file", text)

    def test_mistakes_get_a_suggestion_and_status_2(self):
        for arguments, suggestion in ((["serv"], "serve"), (["serve", "x", "--max-num-seq", "1"], "--max-num-seqs")):
            result = run(*arguments)
            self.assertEqual(result.returncode, 2)
            self.assertIn(f"did you mean {suggestion}?", result.stderr)

    def test_what_is_not_implemented_is_refused_by_name(self):
        result = run("serve", "x", "--enable-lora")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--enable-lora is not implemented", result.stderr)
        self.assertEqual(run("serve", "x", "--tensor-parallel-size", "2").returncode, 2)

    def test_command_lines_of_llm_d_are_taken_but_for_what_is_named(self):
        guide = ["--trust-remote-code", "--disable-uvicorn-access-log", "--enable-expert-parallel", "--tensor-parallel-size", "1",
                 "--data-parallel-size", "1", "--data-parallel-size-local", "1", "--data-parallel-start-rank", "0",
                 "--all2all-backend", "deepep_low_latency", "--moe-backend", "deep_gemm", "--enforce-eager",
                 "--enable-ep-weight-filter", "--max-num-batched-tokens", "256", "--max-num-seqs", "256", "--kv_transfer_config",
                 '{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"fail"}']
        result = run("serve", "no-such-model", *guide)
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("no-such-model", result.stderr)
        self.assertEqual(run("serve", __file__).returncode, 3, "a file is no folder, and will not become one")
        for arguments in (["--gpu-memory-utilization", "0.8"], ["--enable-dbo"], ["--dbo-decode-token-threshold", "32"],
                          ["--async-scheduling"], ["--enable-eplb"], ["--all2all-backend", "nonesuch"], ["--no-enforce-eager"],
                          ["--compilation_config", "{}"], ["--kv-events-config", "{}"], ["--api-server-count", "4"]):
            result = run("serve", "no-such-model", *arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn(f"{arguments[0].replace('_', '-')} is not implemented: ", result.stderr)

    def test_environment_and_file_are_read(self):
        result = run("serve", "x", env={**os.environ, "WIDEEP_BLOCK_SIZE": "many"})
        self.assertIn("WIDEEP_BLOCK_SIZE: 'many' is not an integer", result.stderr)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as config:
            config.write("block-size: 7x\n")
            config.flush()
            self.assertIn("block-size", run("serve", "x", "--config", config.name).stderr)

    def test_the_completion_script_completes(self):
        script = run("completion", "bash").stdout
        check = "COMP_WORDS=(wideep serve --max-num-s); COMP_CWORD=2; _wideep; echo ${COMPREPLY[@]}"
        result = subprocess.run(["bash", "-c", script + "\n" + check], capture_output=True, text=True, check=True)
        self.assertEqual(result.stdout.split(), ["--max-num-seqs"])

    def test_what_is_wrong_is_said_before_a_model_is_loaded(self):
        demo = ROOT / "models/demo"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for words, status, text in (
                    (["serve", "org/name"], 3, "org/name is no folder of this machine"),
                    (["chat", "org/name"], 1, "org/name is no folder of this machine"),
                    (["serve", demo, "--port", taken.getsockname()[1]], 1, "Address already in use"),
                    (["serve", demo, "--port", "65536"], 2, "--port: at most 65535 is expected, not 65536"),
                    (["serve", demo, "--max-num-batched-tokens", "-5"], 2, "at least 1 is expected, not -5"),
                    (["serve", demo, "--max-model-len", "5000"], 2, "max_model_len is 5000, the model has 4096 positions"),
                    (["serve", demo, "--data-parallel-size", "2", "--data-parallel-external-lb"], 2, "Give --data-parallel-rank"),
                    (["gateway", "--endpoint", "x"], 2, "'x' is not HOST:PORT")):
                result = run(*words)
                self.assertEqual(result.returncode, status, (words, result.stderr))
                self.assertIn(text, result.stderr)
                self.assertNotIn("of experts", result.stderr, "that is the log line of a loaded model")

    def test_the_outside_needs_keys(self):
        result = run("gateway", "--host", "0.0.0.0", "--port", "0")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--api-key-file", result.stderr)


class Alive(http.server.BaseHTTPRequestHandler):
    """An endpoint without metrics that answers every completion."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Gateway(unittest.TestCase):
    def test_requests_go_on_to_another_endpoint_while_one_is_down(self):
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Alive) as alive, socket.socket() as down:
            down.bind(("127.0.0.1", 0))  # and does not listen
            threading.Thread(target=alive.serve_forever, daemon=True).start()
            endpoints = [f"127.0.0.1:{port}" for port in (down.getsockname()[1], alive.server_port)]
            with Process("gateway", "--endpoint", endpoints[0], "--endpoint", endpoints[1]) as gateway:
                for number in range(20):
                    self.assertEqual(post(gateway.url + "/v1/completions", {"prompt": f"{number}"}), (200, {}))
                metrics = urllib.request.urlopen(gateway.url + "/metrics", timeout=PATIENCE_S).read().decode()
                self.assertIn('inference_pool_ready_pods{name="default"} 2\n', metrics)
                self.assertIn('inference_extension_scheduler_attempts_total{status="success"} 20\n', metrics)
            alive.shutdown()


    def test_as_many_requests_as_there_may_be_clients_go_to_one_endpoint(self):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        asyncio.run(asyncio.wait_for(self.pass_on_at_once(num_requests=700), PATIENCE_S))

    async def pass_on_at_once(self, num_requests):
        num_seen, all_seen = 0, asyncio.Event()

        def see():
            nonlocal num_seen
            num_seen += 1
            if num_seen == num_requests:
                all_seen.set()

        async def endpoint(reader, writer):
            """Answers completions when it has all of them, and nothing else."""
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    see()
                    await all_seen.wait()
                    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            writer.close()

        async def status_of_request(address):
            reader, writer = await asyncio.open_connection(*address.removeprefix("http://").split(":"))
            writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            status = (await reader.readline()).split()[1]
            if status != b"200":
                see()  # it will not come to the endpoint
            writer.close()
            return status

        async with await asyncio.start_server(endpoint, "127.0.0.1", 0, backlog=num_requests) as server:
            port = server.sockets[0].getsockname()[1]
            with Process("gateway", "--endpoint", f"127.0.0.1:{port}", "--refresh-metrics-interval", "60000") as gateway:
                requests = [status_of_request(gateway.url) for _ in range(num_requests)]
                self.assertEqual(set(await asyncio.gather(*requests)), {b"200"})


class Models(unittest.TestCase):
    def test_golden_sets_pass_in_f32_and_a_tighter_tolerance_fails(self):
        sets = [d for d in sorted(GOLDEN.iterdir()) if (d / "expected").is_dir()]
        self.assertEqual(len(sets), 5)
        result = run("golden", *sets)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(result.stdout.count("passed"), 5)
        self.assertEqual(run("golden", sets[0], "--tolerance", "1e-9").returncode, 1)

    def test_prompts_can_be_expanded_where_there_is_mla(self):
        form = ("--mla-prompt-form", "expanded")
        result = run("golden", GOLDEN / "dsv3-tiny-fp8", *form)
        self.assertEqual(result.returncode, 0, result.stdout)
        refused = run("golden", GOLDEN / "qwen3moe-tiny-bf16", *form)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("--mla-prompt-form", refused.stderr)
        self.assertIn("qwen3_moe has no MLA", refused.stderr)

    def test_broken_checkpoints_are_refused_before_anything_listens(self):
        cases = json.loads((GOLDEN / "bad/cases.json").read_text())
        self.assertEqual(sum(not case["ok"] for case in cases), 40)
        for case in cases:
            if case["ok"]:
                continue
            folder = GOLDEN / "bad" / case["folder"]
            with self.subTest(case["folder"]):
                limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
                result = run("serve", folder, "--port", "0", preexec_fn=limit)
                self.assertEqual(result.returncode, 3, result.stderr)
                last = result.stderr.strip().splitlines()[-1]
                self.assertIn(case["file"], last)
                if case["tensor"]:
                    self.assertIn(case["tensor"], last)
                self.assertNotIn("serving", result.stderr)

    def test_a_model_without_tokenizer_answers_token_ids(self):
        expected = json.loads((GOLDEN / "dsv3-tiny-bf16/expected/golden.json").read_text())
        with Server(GOLDEN / "dsv3-tiny-bf16", "--dtype", "float32", "--threads", "1") as server:
            for prompt in expected["prompts"]:
                status, answer = post(server.url + "/v1/completions",
                                      {"prompt": prompt["input_ids"], "max_tokens": 24, "temperature": 0, "logprobs": 1,
                                       "return_token_ids": True})
                self.assertEqual(status, 200, answer)
                self.assertEqual(answer["choices"][0]["token_ids"], prompt["greedy_ids"])
            status, answer = post(server.url + "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
            self.assertEqual(status, 400)
        self.assertEqual(server.status, 0)

    def test_a_second_start_reads_the_packed_weights(self):
        with tempfile.TemporaryDirectory() as cache:
            for _ in range(2):
                with Server(GOLDEN / "dsv3-tiny-fp8", "--cache-dir", cache, "--threads", "1") as server:
                    status, answer = post(server.url + "/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 4,
                                                                           "temperature": 0, "return_token_ids": True})
                    self.assertEqual(status, 200)
                    tokens = answer["choices"][0]["token_ids"]
            self.assertEqual(len(tokens), 4)
            self.assertEqual(len(list(pathlib.Path(cache).rglob("*.*"))), 1)


class MadeCheckpoints(unittest.TestCase):
    def make(self, folder, *arguments):
        result = run("make-checkpoint", *arguments, folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in pathlib.Path(folder).iterdir()}

    def test_every_architecture_can_be_made_and_served(self):
        for arguments in (["tiny"], ["tiny", "--fp8"], ["tiny-v2"], ["tiny-qwen3"], ["v2-lite", "--layers", 1],
                          ["ds2", "--layers", 2, "--experts", 16]):
            with self.subTest(arguments), tempfile.TemporaryDirectory() as folder:
                self.make(folder, *arguments)
                with Server(folder, "--max-model-len", "1024") as server:
                    status, answer = post(server.url + "/v1/completions",
                                          {"prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "ignore_eos": True,
                                           "logprobs": 1, "return_token_ids": True})
                    self.assertEqual(status, 200, answer)
                    self.assertEqual(len(answer["choices"][0]["token_ids"]), 8)
                    self.assertTrue(all(p < 0 for p in answer["choices"][0]["logprobs"]["token_logprobs"]))
                self.assertEqual(server.status, 0)

    def test_the_seed_decides_the_bytes(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two, \
                tempfile.TemporaryDirectory() as other:
            self.assertEqual(self.make(one, "tiny", "--seed", 7), self.make(two, "tiny", "--seed", 7))
            self.assertNotEqual(self.make(two, "tiny", "--seed", 7), self.make(other, "tiny", "--seed", 8))

    def test_mistakes_are_told_before_anything_is_written(self):
        with tempfile.TemporaryDirectory() as folder:
            result = run("make-checkpoint", "huge", folder)
            self.assertEqual(result.returncode, 1)
            self.assertIn("tiny-qwen3", result.stderr)
            result = run("make-checkpoint", "r1", folder)  # 1.3 TB
            self.assertEqual(result.returncode, 1)
            self.assertIn("the disk has room for", result.stderr)
            self.assertEqual(list(pathlib.Path(folder).glob("*.safetensors")), [])


class Shutdown(unittest.TestCase):
    def test_a_draining_server_says_so_as_long_as_an_answer_is_under_way(self):
        seen_enough = threading.Event()

        def read_until_told(stream):
            while not seen_enough.is_set() and stream.readline():
                pass
            stream.close()

        with Server(GOLDEN / "qwen3moe-tiny-bf16", "--threads", "1") as server:
            body = {"prompt": [5, 6, 7], "max_tokens": 30000, "temperature": 0, "ignore_eos": True, "stream": True}
            stream = urllib.request.urlopen(urllib.request.Request(
                server.url + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}),
                timeout=PATIENCE_S)
            stream.readline()
            reader = threading.Thread(target=read_until_told, args=(stream,))
            reader.start()
            server.process.terminate()
            with self.assertRaises(urllib.error.HTTPError) as not_ready:
                while True:
                    urllib.request.urlopen(server.url + "/ready", timeout=PATIENCE_S).read()
            self.assertEqual(not_ready.exception.code, 503)
            self.assertIn("draining", not_ready.exception.read().decode())
            status, answer = post(server.url + "/v1/completions", {"prompt": [5], "max_tokens": 1})
            self.assertEqual((status, answer["error"]["code"]), (503, "draining"))
            seen_enough.set()
            reader.join()
            self.assertEqual(server.process.wait(timeout=PATIENCE_S), 0)


class DemoModel(unittest.TestCase):
    def test_its_numbers_are_those_of_its_training(self):
        self.assertEqual(run("golden", ROOT / "models/demo").returncode, 0)

    def test_it_answers_as_well_as_its_card_says(self):
        # A change of numerics that costs quality shows here. The floors are the card's figures less two points.
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "scores.json"
            result = run("bench", "quality", ROOT / "models/demo", "--result-filename", out)
            self.assertEqual(result.returncode, 0, result.stderr)
            scores = json.loads(out.read_text())
        self.assertGreaterEqual(scores["trained"]["share"], TRAINED_FLOOR)
        self.assertGreaterEqual(scores["held_out"]["share"], HELD_OUT_FLOOR)


class Speculation(unittest.TestCase):
    CONFIG = ("--speculative-config", '{"method": "deepseek_mtp", "num_speculative_tokens": 1}')

    def drafts(self, server):
        text = urllib.request.urlopen(server.url + "/metrics", timeout=PATIENCE_S).read().decode()
        return [float(re.search(rf"^vllm:spec_decode_num_{name}_total{{[^}}]*}} (\S+)$", text, re.M).group(1))
                for name in ("draft_tokens", "accepted_tokens")]

    def test_golden_tokens_come_out_and_some_were_guessed(self):
        expected = json.loads((GOLDEN / "dsv3-tiny-mtp/expected/golden.json").read_text())
        with Server(GOLDEN / "dsv3-tiny-mtp", "--dtype", "float32", "--threads", "1", "--speculation", "always",
                    *self.CONFIG) as server:
            for prompt in expected["prompts"]:
                status, answer = post(server.url + "/v1/completions",
                                      {"prompt": prompt["input_ids"], "max_tokens": len(prompt["greedy_ids"]),
                                       "temperature": 0, "ignore_eos": True, "return_token_ids": True})
                self.assertEqual(status, 200, answer)
                self.assertEqual(answer["choices"][0]["token_ids"], prompt["greedy_ids"])
            guessed, right = self.drafts(server)
            self.assertGreater(guessed, right)
            self.assertGreater(right, 0)

    def test_sampled_answers_are_the_same_with_without_and_while_it_is_measured(self):
        questions = ["What is a cynic?", "Define the word economy.", "Who are you?", "Tell me of the sea."]

        def ask(url, seed):
            status, answer = post(url + "/v1/chat/completions",
                                  {"messages": [{"role": "user", "content": questions[seed % 4]}], "seed": seed,
                                   "temperature": 0.9, "max_tokens": 80, "ignore_eos": True, "logprobs": True})
            self.assertEqual(status, 200, answer)
            return answer["choices"]

        answers = []
        for arguments in ((), (*self.CONFIG, "--speculation", "always"), self.CONFIG):
            with Server(ROOT / "models/demo", *arguments) as server, \
                    concurrent.futures.ThreadPoolExecutor(8) as clients:
                answers.append(list(clients.map(lambda seed: ask(server.url, seed), range(16))))
                if "always" in arguments:
                    guessed, right = self.drafts(server)
                    self.assertGreater(right / guessed, 0.3)
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])

    def test_what_cannot_be_is_refused_by_name(self):
        for model, config, status, text in (
                ("dsv2-tiny-bf16", '{"method": "mtp"}', 3, "no draft layer"),
                ("dsv3-tiny-mtp", '{"method": "eagle"}', 2, "method 'eagle' is not implemented"),
                ("dsv3-tiny-mtp", '{"method": "mtp", "num_speculative_tokens": 3}', 2, "num_speculative_tokens 3")):
            result = run("serve", GOLDEN / model, "--port", "0", "--speculative-config", config)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertIn(text, result.stderr)


class ExpertLoad(unittest.TestCase):
    def test_a_rank_by_itself_answers_as_a_group_of_one_and_its_answer_places_experts(self):
        request = {"prompt": [5, 6, 7, 8], "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        with Server(GOLDEN / "dsv3-tiny-bf16", "--threads", "1") as server, tempfile.TemporaryDirectory() as folder:
            self.assertEqual(post(server.url + "/v1/completions", request)[0], 200)
            load = json.load(urllib.request.urlopen(server.url + "/expert_load", timeout=PATIENCE_S))
            self.assertEqual(load["rank"], 0)
            self.assertGreater(len(load["layers"]), 0)
            for layer in load["layers"]:
                self.assertEqual(sum(expert["rows"] for expert in layer["experts"]), layer["sent"][0])
                self.assertEqual(len(layer["sent"]), 1)
            recorded = pathlib.Path(folder) / "load.json"
            recorded.write_text(json.dumps(load))
            with Server(GOLDEN / "dsv3-tiny-bf16", "--threads", "1", "--data-parallel-size", "2", "--enable-expert-parallel",
                        "--expert-load-file", recorded) as group:
                self.assertEqual(post(group.url + "/v1/completions", request)[0], 200)


class Bench(unittest.TestCase):
    def test_bench_ep_measures_what_the_judge_has_found_right(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "result.json"
            tiny = ["--tokens", "1,5", "--hidden", 256, "--experts", 8, "--top-k", 2, "--rounds", 2, "--no-with-mpi"]
            result = run("bench", "ep", "--ranks", "1,2", "--routing", "zipf", *tiny, "--result-filename", out)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            cases = json.loads(out.read_text())["cases"]
            self.assertEqual([(case["ranks"], case["tokens"], case["mode"]) for case in cases],
                             [(ranks, tokens, mode) for ranks in (1, 2) for tokens in (1, 5) for mode in ("ll", "ht")])
            for case in cases:
                self.assertGreater(case["wideep"]["us_median"], 0)
                self.assertGreater(case["share_of_floor"], 0)
                self.assertNotIn("mpi", case)
            # Over two nodes and in other formats; every trial is compared with the judge first.
            result = run("bench", "ep", "--ranks", 2, "--nodes", 2, "--mode", "ht", "--dispatch-format", "int8,fp8",
                         "--combine-format", "f32", *tiny)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertEqual(len(json.loads(result.stdout)["cases"]), 8)
            for arguments, words in (["--ranks", "2", "--hidden", "100"], "--hidden 100"), (["--tokens", "x"], "--tokens"), \
                                    (["--ranks", "2", "--nodes", "3"], "2 ranks on 3 nodes"), (["--mode", "fast"], "ll or ht"):
                result = run("bench", "ep", *arguments)
                self.assertEqual(result.returncode, 1)
                self.assertIn(words, result.stderr)

    def test_bench_serve_prints_vllms_keys(self):
        with Server(GOLDEN / "qwen3moe-tiny-bf16", "--threads", "1") as server, tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "result.json"
            result = run("bench", "serve", "--base-url", server.url, "--num-prompts", 8, "--random-input-len", 20,
                         "--random-output-len", 8, "--random-vocab-size", 500, "--max-concurrency", 4,
                         "--goodput", "ttft:10000", "--result-filename", out)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            report = json.loads(out.read_text())
            self.assertEqual(report["completed"], 8)
            self.assertEqual(report["total_output_tokens"], 64)
            for key in ("request_throughput", "output_throughput", "mean_ttft_ms", "p99_tpot_ms", "median_itl_ms"):
                self.assertGreater(report[key], 0, key)


if __name__ == "__main__":
    signal.alarm(1780)
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
