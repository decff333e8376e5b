"""The wideep program from outside: help, mistakes, exit statuses, broken models. Argument: the binary."""
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
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
TRAINED_FLOOR, HELD_OUT_FLOOR = 0.97, 0.77


def run(*arguments, **more):
    return subprocess.run([WIDEEP, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE_S, **more)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class Server:
    """`wideep serve` on a free port, ended with SIGTERM."""

    def __init__(self, model, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        ready = pathlib.Path(self.folder.name) / "url"
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+")
        self.process = subprocess.Popen([WIDEEP, "serve", str(model), "--port", "0", "--ready-file", ready,
                                         "--kv-cache-memory-bytes", "64M", *map(str, arguments)], stderr=self.log)
        give_up = time.monotonic() + PATIENCE_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.log.seek(0)
                raise AssertionError("the server did not become ready:\n" + self.log.read())
            time.sleep(0.02)
        self.url = ready.read_text().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.status = self.process.wait(timeout=PATIENCE_S)
        self.log.close()
        self.folder.cleanup()


class Help(unittest.TestCase):
    def test_every_verb_is_listed_and_explains_itself(self):
        overview = run("--help").stdout
        for verb in ("serve", "chat", "gateway", "epp", "sidecar", "bench serve", "bench quality", "golden", "make-checkpoint"):
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

    def test_the_outside_needs_keys(self):
        result = run("gateway", "--host", "0.0.0.0", "--port", "0")
        self.assertEqual(result.returncode, 1)
        self.assertIn("--api-key-file", result.stderr)


class Models(unittest.TestCase):
    def test_golden_sets_pass_in_f32_and_a_tighter_tolerance_fails(self):
        sets = [d for d in sorted(GOLDEN.iterdir()) if (d / "expected").is_dir()]
        self.assertEqual(len(sets), 5)
        result = run("golden", *sets)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(result.stdout.count("passed"), 5)
        self.assertEqual(run("golden", sets[0], "--tolerance", "1e-9").returncode, 1)

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


class Bench(unittest.TestCase):
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
    signal.alarm(580)
    unittest.main(argv=[sys.argv[0]], verbosity=2)
