"""Drives a server with the official OpenAI clients: this file with Python's, check_client.mjs with
JavaScript's.

    check_clients.py --node-modules FOLDER --toy TOY_SERVER
    check_clients.py --node-modules FOLDER --serve "wideep serve MODEL"
    check_clients.py --node-modules FOLDER --serve "wideep up --model MODEL" --deployment

The server is started here. What needs the toy model is left out for a real one.
"""

import argparse
import json
import os
import pathlib
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import openai
from prometheus_client.parser import text_string_to_metric_families

KEY = "sk-test"
# Never byte 1, which the toy model answers with a NaN.
NO_ERROR = {"logit_bias": {"1": -100}}
PATIENCE_S = 60
# Of the toy server.
RUNNING_MAX = 4
WAITING_MAX = 8


class Server:
    """A server of our own, from its start to its end."""

    def __init__(self, options):
        if options.toy:
            command = [options.toy, KEY]
        else:
            ready = pathlib.Path(tempfile.mkdtemp()) / "ready"
            command = shlex.split(options.serve) + [
                "--port", "0", "--api-key", KEY, "--ready-file", str(ready)]
        self.is_deployment = options.deployment
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if options.toy:
            self.url = "http://" + self.process.stdout.readline().split()[1]
        else:
            self.wait_for("the server", lambda: self.process.poll() is not None or ready.exists())
            self.url = ready.read_text().strip()
        [self.card] = self.client().models.list().data

    @property
    def model(self):
        return self.card.id

    def long(self):
        """A generation that does not end before it is aborted."""
        tokens = min(50_000, self.card.max_model_len - 100)
        return {"max_tokens": tokens, "extra_body": {"ignore_eos": True}, **NO_ERROR}

    def get(self, path, url=None):
        request = urllib.request.Request((url or self.url) + path, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return response.read().decode()

    def metrics(self):
        """Of the server; of a deployment, of all ranks behind its gateway."""
        if not self.is_deployment:
            return self.get("/metrics")
        return "".join(self.get("/metrics", "http://" + endpoint["address"])
                       for endpoint in json.loads(self.get("/endpoints"))["endpoints"])

    def metric(self, name, labels=""):
        """The sum over the ranks."""
        pattern = rf"^{re.escape(name)}{{[^}}]*{re.escape(labels)}[^}}]*}} (\S+)$"
        return sum(map(float, re.findall(pattern, self.metrics(), re.MULTILINE)))

    def wait_for(self, what, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            select.select([], [], [], 0.02)

    def client(self, key=KEY):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=PATIENCE_S)


def expect_error(kind, status, code, call):
    try:
        call()
    except kind as error:
        assert type(error) is kind, f"{type(error)} instead of {kind}"
        assert error.status_code == status, error
        assert error.code == code, f"code {error.code} instead of {code}"
        assert len(error.message) < 2000
        return error
    raise AssertionError(f"{kind.__name__} did not come")


def user(text):
    return [{"role": "user", "content": text}]


def check_models(server, model):
    listed = server.client().models.list()
    assert model in [m.id for m in listed]
    assert server.client().models.retrieve(model).id == model


def check_chat(server, model):
    answer = server.client().chat.completions.create(
        model=model, messages=user("hello"), max_tokens=8, seed=1, extra_body={"ignore_eos": True})
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == model
    assert choice.message.role == "assistant" and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


def check_stream_equals_whole(server, model):
    arguments = dict(model=model, messages=user("the same"), max_tokens=40, seed=7, temperature=1.0,
                     n=2, logprobs=True, top_logprobs=3)
    whole = server.client().chat.completions.create(**arguments)
    texts, tokens, finish = ["", ""], [[], []], [None, None]
    usage = None
    with server.client().chat.completions.create(
            **arguments, stream=True, stream_options={"include_usage": True}) as stream:
        roles = set()
        for chunk in stream:
            assert usage is None, "a chunk after the usage"
            usage = chunk.usage
            for choice in chunk.choices:
                if choice.delta.role:
                    roles.add(choice.index)
                assert choice.index in roles, "content before the opening chunk"
                texts[choice.index] += choice.delta.content or ""
                if choice.logprobs:
                    tokens[choice.index] += choice.logprobs.content
                finish[choice.index] = finish[choice.index] or choice.finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens
    for choice in whole.choices:
        assert texts[choice.index] == (choice.message.content or "")
        assert finish[choice.index] == choice.finish_reason
        assert [t.logprob for t in tokens[choice.index]] == [t.logprob for t in choice.logprobs.content]
        assert [t.bytes for t in tokens[choice.index]] == [t.bytes for t in choice.logprobs.content]


def check_logprobs(server, model):
    answer = server.client().chat.completions.create(
        model=model, messages=user("x"), max_tokens=5, temperature=0, logprobs=True, top_logprobs=4,
        extra_body={"ignore_eos": True})
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 5
    for entry in entries:
        assert len(entry.top_logprobs) == 4
        assert entry.logprob <= 0 and entry.logprob == entry.top_logprobs[0].logprob
        ordered = [t.logprob for t in entry.top_logprobs]
        assert ordered == sorted(ordered, reverse=True)
    legacy = server.client().completions.create(
        model=model, prompt="x", max_tokens=3, logprobs=2, extra_body={"ignore_eos": True})
    found = legacy.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == 3
    assert all(2 <= len(top) <= 3 for top in found.top_logprobs)


def check_completions(server, model):
    answer = server.client().completions.create(
        model=model, prompt=["ab", "cd"], n=2, max_tokens=4, seed=3, echo=True,
        extra_body={"ignore_eos": True})
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text.startswith("ab") and answer.choices[3].text.startswith("cd")
    chunks = list(server.client().completions.create(
        model=model, prompt=[104, 105], max_tokens=4, seed=3, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    assert all(c.object == "text_completion" for c in chunks)


def check_errors(server, model):
    chat = server.client().chat.completions.create
    bad, missing = openai.BadRequestError, openai.NotFoundError
    expect_error(bad, 400, "invalid_value", lambda: chat(model=model, messages=user("x"), n=99))
    expect_error(bad, 400, "invalid_value", lambda: chat(model=model, messages=user("x"), temperature=9))
    expect_error(bad, 400, "invalid_value", lambda: chat(model=model, messages=[]))
    error = expect_error(bad, 400, "unknown_field",
                         lambda: chat(model=model, messages=user("x"), extra_body={"temprature": 1}))
    assert error.param == "temprature"
    tools = [{"type": "function", "function": {"name": "f"}}]
    error = expect_error(bad, 400, "not_implemented",
                         lambda: chat(model=model, messages=user("x"), tools=tools))
    assert error.param == "tools"
    expect_error(bad, 400, "not_implemented", lambda: chat(
        model=model, messages=user("x"), response_format={"type": "json_object"}))
    expect_error(bad, 400, "context_length_exceeded",
                 lambda: chat(model=model, messages=user("x"), max_tokens=10_000_000))
    expect_error(missing, 404, "model_not_found", lambda: chat(model="gpt-4", messages=user("x")))
    expect_error(missing, 404, "model_not_found", lambda: server.client().models.retrieve("a/b"))
    expect_error(openai.AuthenticationError, 401, "invalid_api_key",
                 lambda: server.client("sk-wrong").chat.completions.create(model=model, messages=user("x")))


def check_toy_error(server, model):
    """A NaN among the logits is our fault: 500, and the next request works."""
    expect_error(openai.InternalServerError, 500, "engine_error",
                 lambda: server.client().completions.create(model=model, prompt=[1], max_tokens=4))
    check_chat(server, model)


def check_abort(server, model):
    aborted = server.metric("vllm:request_success_total", 'finished_reason="abort"')
    stream = server.client().chat.completions.create(
        model=model, messages=user("go on"), stream=True, n=2, **server.long())
    for _, _ in zip(range(5), stream):
        pass
    stream.close()
    server.wait_for("the abort", lambda: server.metric(
        "vllm:request_success_total", 'finished_reason="abort"') == aborted + 2)
    server.wait_for("an idle engine", lambda: server.metric("vllm:num_requests_running") == 0)
    # A prefill rank hears a moment later that its blocks were pulled.
    server.wait_for("free blocks", lambda: server.metric("vllm:kv_cache_usage_perc") == 0)


def check_full_queue(server, model):
    """As many run and wait as may; the next is told to come back."""
    streams = [server.client().chat.completions.create(
        model=model, messages=user(str(i)), stream=True, **server.long()) for i in range(RUNNING_MAX)]
    for stream in streams:
        next(iter(stream))
    waiting = [threading.Thread(target=lambda: quietly(server, model), daemon=True)
               for _ in range(WAITING_MAX)]
    for thread in waiting:
        thread.start()
    server.wait_for("a full queue", lambda: server.metric("vllm:num_requests_waiting") == WAITING_MAX)
    error = expect_error(openai.RateLimitError, 429, "engine_overloaded",
                         lambda: server.client().chat.completions.create(model=model, messages=user("one more")))
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    for stream in streams:
        stream.close()
    for thread in waiting:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a waiting request never ran"


def quietly(server, model):
    server.client().chat.completions.create(model=model, messages=user("wait"), max_tokens=2)


def check_drain(server, model):
    """SIGTERM: the stream under way ends well, nobody new gets in, the process ends with 0."""
    stream = iter(server.client().chat.completions.create(
        model=model, messages=user("last"), stream=True, max_tokens=1000,
        extra_body={"ignore_eos": True}, **NO_ERROR))
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    finish = [c.choices[0].finish_reason for c in stream if c.choices][-1]
    assert finish == "length", finish
    assert server.process.wait(PATIENCE_S) == 0
    try:
        server.client().models.list()
    except openai.APIConnectionError:
        return
    raise AssertionError("someone still listens")


def check_metrics(server, model):
    """Prometheus' own parser reads them, and what endpoint pickers need is there."""
    families = {f.name: f for f in text_string_to_metric_families(server.get("/metrics"))}
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        [sample] = families["vllm:" + name].samples
        assert sample.labels == {"model_name": model, "engine": "0"}
    [cache] = families["vllm:cache_config_info"].samples
    assert int(cache.labels["block_size"]) > 0 and int(cache.labels["num_gpu_blocks"]) > 0
    assert families["vllm:generation_tokens"].type == "counter"
    assert families["vllm:time_to_first_token_seconds"].type == "histogram"


def check_javascript(server, node_modules):
    script = pathlib.Path(__file__).with_name("check_client.mjs")
    # Modules are looked for beside the script's real path; NODE_PATH is for require() only.
    environment = dict(os.environ, OPENAI_PATH=str(pathlib.Path(node_modules).resolve()))
    subprocess.run(["node", str(script), server.url + "/v1", KEY, server.model,
                    str(server.card.max_model_len)], env=environment, check=True,
                   timeout=5 * PATIENCE_S)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--node-modules", required=True)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--toy")
    kind.add_argument("--serve")
    parser.add_argument("--deployment", action="store_true", help="a gateway in front of several ranks")
    options = parser.parse_args()
    server = Server(options)
    checks = [check_models, check_chat, check_stream_equals_whole, check_logprobs, check_completions,
              check_errors, check_abort, check_metrics]
    if options.deployment:
        checks.remove(check_metrics)  # of one rank
    if options.toy:
        checks += [check_toy_error, check_full_queue]
    try:
        for check in checks:
            check(server, server.model)
            print(f"ok   {check.__name__}", flush=True)
        check_javascript(server, options.node_modules)
        check_drain(server, server.model)
        print("ok   check_drain")
    finally:
        if server.process.poll() is None:
            server.process.kill()
    print(f"openai {openai.__version__}: all checks passed")


if __name__ == "__main__":
    sys.exit(main())
