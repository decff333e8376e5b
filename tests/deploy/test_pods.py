"""The manifests and units of deploy/ at work: their own arguments, users, volumes and probes, in pods on this machine.

Argument: the binary.
"""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest

import manifests
from cluster import NODE, Cluster, Pod, enter, get, wait_for
from manifests import KUBERNETES, render

WIDEEP = sys.argv[1]
KEYS = {"clients.keys": "ann secret-of-ann\nprometheus secret-of-prometheus\n", "prometheus.token": "secret-of-prometheus"}
RANK_KEYS = {"group.key": "a secret of the ranks\n", "kv.key": "another secret, for KV\n"}
QUESTION = {"model": "model", "messages": [{"role": "user", "content": "What is a cynic, and what did one of them say to a king?"}],
            "max_tokens": 12, "temperature": 0}


class Base(unittest.TestCase):
    def cluster(self, objects=()):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        cluster = Cluster(WIDEEP, pathlib.Path(folder.name), objects)
        self.addCleanup(cluster.close)
        self.addCleanup(lambda: self.has_failed() and print(cluster.logs()))
        cluster.secret("wideep-ranks", **RANK_KEYS)
        cluster.secret("wideep-clients", **KEYS)
        return cluster

    def has_failed(self):
        return any(test is self for test, _ in self._outcome.result.failures + self._outcome.result.errors)

    def ask(self, host, port, key="secret-of-ann"):
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        return get(host, port, "/v1/chat/completions", headers, "POST", json.dumps(QUESTION))

    def answer(self, host, port):
        status, _, body = self.ask(host, port)
        self.assertEqual(status, 200, body)
        return json.loads(body)["choices"][0]["message"]["content"]


def metric(pod, name):
    text = get(pod.address, 8000, "/metrics")[2]
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


class OwnGateway(Base):
    def test_it_serves_loses_a_rank_and_serves_again(self):
        cluster = self.cluster(render(KUBERNETES / "own-gateway"))
        prefill, decode = cluster.start_group("wideep-prefill"), cluster.start_group("wideep-decode")
        gateway = cluster.start_deployment("wideep-gateway")
        self.assertEqual(wait_for("the gateway", lambda: get(gateway.address, 8080, "/ready")[0], *gateway.processes.values()), 503)
        cluster.wait_until_ready(prefill + decode)
        cluster.wait_until_ready([gateway])

        self.assertEqual(self.ask(gateway.address, 8080, "wrong")[0], 401)
        first = self.answer(gateway.address, 8080)
        self.assertTrue(first)
        pulled = 'vllm:prompt_tokens_by_source_total{model_name="model",engine="%d",source="external_kv_transfer"}'
        self.assertGreater(sum(metric(pod, pulled % rank) for rank, pod in enumerate(decode)), 16, "the prompt was prefilled apart")
        self.check_metrics(prefill + decode, gateway)

        # A rank is killed: the other one ends by itself, and says in its status that the group is to be made anew.
        decode[1].processes["engine"].kill()
        self.assertEqual(decode[0].processes["engine"].wait(60), 4)
        cluster.update_services()
        wait_for("the gateway to notice", lambda: self.ask(gateway.address, 8080)[0] == 503)
        cluster.remove(decode)
        decode = cluster.start_group("wideep-decode")
        cluster.wait_until_ready(decode)
        wait_for("the gateway to see the new pods", lambda: self.ask(gateway.address, 8080)[0] == 200)
        self.assertEqual(self.answer(gateway.address, 8080), first)

        for pod in [gateway, *decode, *prefill]:
            self.assertEqual(set(pod.stop().values()), {0}, pod.name)

    def check_metrics(self, ranks, gateway):
        """What dashboard and alerts name is there, with the labels that they use."""
        text = get(gateway.address, 8080, "/metrics", {"authorization": f"Bearer {KEYS['prometheus.token']}"})[2]
        text += "".join(get(pod.address, 8000, "/metrics")[2] for pod in ranks)
        exported = set(re.findall(r"^([a-z]+:[a-z0-9_]+)", text, re.M))
        used = manifests.metrics_used()
        self.assertGreater(len(used), 20)
        self.assertEqual({(where, name) for where, name in used if name not in exported}, set())
        labels = set(re.findall(r'[{,]([a-z_]+)="', text)) | {"instance", "le"}
        rules = manifests.documents(KUBERNETES / "monitoring/alerts.yaml")[0]["spec"]["groups"][0]["rules"]
        for rule in rules:
            named = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
            for group in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", rule["expr"]):
                named += group.split(", ")
            self.assertLessEqual(set(named), labels, rule["alert"])


class InferenceGateway(Base):
    def test_the_picker_finds_the_ranks_and_speaks_tls(self):
        cluster = self.cluster(render(KUBERNETES / "inference-gateway"))
        # The command of deploy/README.md.
        make = re.search(r"openssl req [^\n]*", (manifests.DEPLOY / "README.md").read_text()).group(0)
        subprocess.run(["sh", "-c", make], cwd=cluster.folder, check=True, stderr=subprocess.DEVNULL)
        cluster.secret("wideep-epp-tls", **{f: (cluster.folder / f).read_text() for f in ("tls.crt", "tls.key")})
        cluster.names.of_services = {"wideep-decode-ready": ["10.79.9.1", "10.79.9.2"]}
        picker = cluster.start_deployment("wideep-epp")
        cluster.wait_until_ready([picker])
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        anybody.set_alpn_protocols(["h2"])
        with socket.create_connection((picker.address, 9002), timeout=60) as plain, anybody.wrap_socket(plain) as secure:
            self.assertEqual(secure.selected_alpn_protocol(), "h2")
        cluster.names.of_services = {"wideep-decode-ready": ["10.79.9.1", "10.79.9.2"]}
        cluster.names.publish()
        wait_for("the picker to look", lambda: "wideep-decode-ready: 2 addresses" in picker.log("epp"),
                 *picker.processes.values())
        self.assertIn('inference_pool_ready_pods{name="default"}', get(picker.address, 9090, "/metrics")[2])
        self.assertEqual(picker.stop(), {"epp": 0})


class NameService(Base):
    def test_one_that_is_silent_keeps_nobody_from_answering_or_ending(self):
        cluster = self.cluster()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind((NODE, 53))
            (cluster.folder / "resolv.conf").write_text(f"nameserver {NODE}\noptions timeout:30 attempts:3\n")
            (cluster.folder / "nsswitch.conf").write_text("hosts: dns\n")
            pod = Pod(cluster, "gateway")
            cluster.pods["gateway"] = pod
            process = pod.run("gateway", ["gateway", "--host", "0.0.0.0", "--insecure", "--endpoint", "decode=here:1",
                                          "--endpoint-dns", "decode=there:1"], {}, [])
            silent.settimeout(60)
            silent.recv(512)
            self.assertEqual(wait_for("an answer", lambda: get(pod.address, 8080, "/live")[0], process), 200)
            process.send_signal(signal.SIGTERM)
            # Far less than the 90 s that the resolver waits.
            self.assertEqual(process.wait(60), 0)


class Machine(Base):
    def test_one_that_vanishes_is_noticed_by_whoever_waits_for_it(self):
        cluster = self.cluster()
        engine, door = Pod(cluster, "engine"), Pod(cluster, "door")
        cluster.pods = {"engine": engine, "door": door}
        engine.run("serve", ["serve", "/model", "--host", "0.0.0.0", "--insecure"], {},
                   [(manifests.ROOT / "models/demo", "/model", "ro")])
        door.run("gateway", ["gateway", "--host", "0.0.0.0", "--insecure", "--endpoint", f"{engine.address}:8000"], {}, [])
        wait_for("the engine", lambda: get(engine.address, 8000, "/ready")[0] == 200, *engine.processes.values())
        stream = http.client.HTTPConnection(door.address, 8080, timeout=60)
        self.addCleanup(stream.close)
        body = json.dumps({"model": "model", "prompt": "a", "max_tokens": 3900, "ignore_eos": True, "stream": True})
        stream.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        answer = stream.getresponse()
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.readline())
        engine.vanish()
        self.assertIn(b'"code":"endpoint_failed"', answer.read())


class Units(Base):
    """The examples of the unit, as systemd would run them."""

    def host(self, cluster, name, *units, **changes):
        keys = cluster.folder / f"etc-{name}"
        (keys / "keys").mkdir(parents=True)
        for file, text in {**RANK_KEYS, **KEYS}.items():
            (keys / "keys" / file).write_text(text)
            (keys / "keys" / file).chmod(0o600)
        (keys / "picker.yaml").write_text((KUBERNETES / "base/picker.yaml").read_text())
        for path in [keys, *keys.rglob("*")]:
            os.chown(path, 64205, 64205)
        pod = Pod(cluster, name)
        cluster.pods[name] = pod
        for unit in units:
            folders = {place: cluster.folder / f"{place}-{name}-{unit}" for place in ("cache", "run")}
            for folder in folders.values():
                folder.mkdir()
                os.chown(folder, 64205, 64205)
            environment = {**manifests.examples()[unit], **changes, "WIDEEP_THREADS": "1",
                           "XDG_CACHE_HOME": "/var/cache", "XDG_RUNTIME_DIR": f"/run/wideep-{unit}"}
            if unit in ("gateway", "sidecar"):
                del environment["WIDEEP_THREADS"]
            words = environment.pop("COMMAND").split()
            pod.run(unit, words, environment, [
                (keys, "/etc/wideep", "ro"), (manifests.ROOT / "models/demo", "/srv/wideep/model", "ro"),
                (folders["cache"], "/var/cache/wideep", "rw"), (folders["run"], f"/run/wideep-{unit}", "rw")])
        return pod

    def test_two_hosts_are_one_group_with_one_door(self):
        cluster = self.cluster()
        head = self.host(cluster, "host-a", "head")
        other = self.host(cluster, "host-b", "headless")
        wait_for("the door", lambda: get(head.address, 8000, "/ready")[0] == 200,
                 *head.processes.values(), *other.processes.values())
        self.assertTrue(self.answer(head.address, 8000))
        self.assertEqual([pod.stop() for pod in (other, head)], [{"headless": 0}, {"head": 0}])


if __name__ == "__main__":
    if not enter():
        print("skipped: networks of their own need root and the iproute2 tools")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[2:], verbosity=2)
