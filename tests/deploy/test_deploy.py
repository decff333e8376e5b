"""deploy/ as it is written: flags exist, objects fit together, tools that are at hand accept them.

Arguments: the binary, and a folder for what is installed to judge by.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import manifests
from manifests import KUBERNETES, ROOT, SYSTEMD, containers, pod_template, render, selects

WIDEEP, INTEROP = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
OVERLAYS = ["own-gateway", "inference-gateway"]


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


def flags_of(verb):
    """The flags of a verb and their environment variables, as its help has them."""
    text = run(WIDEEP, verb, "--help").stdout
    flags = set(re.findall(r"^ +(?:-\w+, )?(--[a-z0-9-]+)", text, re.M))
    return flags, set(re.findall(r"WIDEEP_[A-Z0-9_]+", text))


class Flags(unittest.TestCase):
    def check(self, verb, words, environment, where):
        flags, variables = flags_of(verb)
        self.assertGreater(len(flags), 5, verb)
        for word in words:
            if word.startswith("--"):
                flag = word.split("=")[0]
                self.assertTrue(flag in flags or flag.replace("--no-", "--") in flags, f"{where}: {flag}")
        for name in environment:
            if name.startswith("WIDEEP_"):
                self.assertIn(name, variables, where)

    def test_every_flag_of_a_manifest_exists(self):
        seen = set()
        for overlay in OVERLAYS:
            for thing in filter(pod_template, render(KUBERNETES / overlay)):
                for container in containers(pod_template(thing)):
                    verb, *words = container["args"]
                    names = [item["name"] for item in container.get("env", [])]
                    self.check(verb, words, names, f"{overlay}: {thing['metadata']['name']}/{container['name']}")
                    seen.add(verb)
        self.assertEqual(seen, {"serve", "sidecar", "gateway", "epp"})

    def test_every_variable_of_a_unit_exists(self):
        for name, environment in manifests.examples().items():
            verb, *words = environment["COMMAND"].split()
            self.check(verb, words, environment, name)


class Objects(unittest.TestCase):
    def objects(self, overlay, kind=None):
        return [thing for thing in render(KUBERNETES / overlay) if kind in (None, thing["kind"])]

    def pods(self, overlay):
        return [pod_template(thing) for thing in self.objects(overlay) if pod_template(thing)]

    def test_selectors_select_and_ports_are_there(self):
        for overlay in OVERLAYS:
            pods = self.pods(overlay)
            for service in self.objects(overlay, "Service"):
                chosen = [pod for pod in pods if selects(service["spec"]["selector"], pod["metadata"]["labels"])]
                self.assertEqual(len(chosen), 1, service["metadata"]["name"])
                ports = [port[key] for c in containers(chosen[0]) for port in c["ports"] for key in ("name", "containerPort")]
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], ports, service["metadata"]["name"])
            for policy in self.objects(overlay, "NetworkPolicy"):
                for rule in [policy["spec"]] + [peer for r in policy["spec"]["ingress"] for peer in r["from"]]:
                    labels = rule.get("podSelector", {}).get("matchLabels", {})
                    if any(key.startswith("app.kubernetes.io/") for key in labels) and "wideep-door" not in labels.values():
                        self.assertTrue([p for p in pods if selects(labels, p["metadata"]["labels"])], labels)

    def test_probes_and_volumes_name_what_is_there(self):
        for overlay in OVERLAYS:
            maps = {thing["metadata"]["name"] for thing in self.objects(overlay, "ConfigMap")}
            for pod in self.pods(overlay):
                volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
                for volume in pod["spec"]["volumes"]:
                    if "configMap" in volume:
                        self.assertIn(volume["configMap"]["name"], maps)
                for container in containers(pod):
                    ports = {port["name"] for port in container["ports"]}
                    self.assertIn("readinessProbe", container)
                    self.assertIn("livenessProbe", container)
                    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                        probe = container.get(kind, {})
                        for how in (probe.get("httpGet"), probe.get("tcpSocket")):
                            if how:
                                self.assertIn(how["port"], ports)
                    for mount in container.get("volumeMounts", []):
                        self.assertIn(mount["name"], volumes)

    def test_pods_have_no_rights_and_no_variables_of_services(self):
        for overlay in OVERLAYS:
            for pod in self.pods(overlay):
                spec = pod["spec"]
                self.assertIs(spec["enableServiceLinks"], False, "WIDEEP_PORT of a Service would be --port")
                self.assertIs(spec["automountServiceAccountToken"], False)
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                for container in containers(pod):
                    self.assertEqual(container["securityContext"]["capabilities"], {"drop": ["ALL"]})
                    self.assertIs(container["securityContext"]["allowPrivilegeEscalation"], False)

    def test_there_is_time_to_drain(self):
        for overlay in OVERLAYS:
            for pod in self.pods(overlay):
                for container in containers(pod):
                    waits = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0, 0])[1])
                    drains = next(int(a.split("=")[1]) for a in container["args"] if re.match("--(shutdown|drain)-timeout=", a))
                    self.assertLess(waits + drains, pod["spec"]["terminationGracePeriodSeconds"])

    def test_ranks_can_have_cores_of_their_own(self):
        for pod in self.pods("own-gateway"):
            if pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "wideep-ranks":
                for container in containers(pod):
                    resources = container["resources"]
                    self.assertEqual(resources["requests"], resources["limits"])
                    self.assertEqual(int(resources["limits"]["cpu"]), float(resources["limits"]["cpu"]))

    def test_custom_resources_have_what_their_definitions_ask_for(self):
        kinds = {"LeaderWorkerSet": ("leaderworkerset.x-k8s.io/v1", {"replicas", "leaderWorkerTemplate"}),
                 "InferencePool": ("inference.networking.k8s.io/v1", {"selector", "targetPorts", "endpointPickerRef"}),
                 "HTTPRoute": ("gateway.networking.k8s.io/v1", {"parentRefs", "rules"}),
                 "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
                 "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"})}
        seen = set()
        for folder in OVERLAYS + ["monitoring"]:
            for thing in self.objects(folder):
                if thing["kind"] in kinds:
                    version, fields = kinds[thing["kind"]]
                    self.assertEqual(thing["apiVersion"], version)
                    self.assertEqual(set(thing["spec"]), fields, thing["kind"])
                    seen.add(thing["kind"])
        self.assertEqual(seen, set(kinds))

    def test_the_pool_and_its_picker_belong_together(self):
        pool, = self.objects("inference-gateway", "InferencePool")
        route, = self.objects("inference-gateway", "HTTPRoute")
        reference = pool["spec"]["endpointPickerRef"]
        service = next(s for s in self.objects("inference-gateway", "Service") if s["metadata"]["name"] == reference["name"])
        self.assertEqual(service["spec"]["ports"][0]["port"], reference["port"]["number"])
        self.assertEqual(route["spec"]["rules"][0]["backendRefs"][0]["name"], pool["metadata"]["name"])
        members = [pod for pod in self.pods("inference-gateway")
                   if selects(pool["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"])]
        self.assertEqual(len(members), 2)
        for pod in members:  # what the picker names is in the pool
            ports = [port["containerPort"] for c in containers(pod) for port in c["ports"]]
            self.assertIn(pool["spec"]["targetPorts"][0]["number"], ports)

    def test_the_picker_is_configured_as_wideep_up_does_it(self):
        printed = manifests.yaml.safe_load(run(WIDEEP, "up", "--model", ROOT / "models/demo", "--print-config").stdout)
        ours = manifests.yaml.safe_load((KUBERNETES / "base/picker.yaml").read_text())
        self.assertEqual(ours, manifests.yaml.safe_load(printed["picker"]["config"]))

    def test_kubectl_renders_the_same(self):
        kubectl = shutil.which("kubectl")
        if not kubectl:
            self.skipTest("no kubectl")
        for overlay in OVERLAYS + ["monitoring"]:
            rendered = run(kubectl, "kustomize", KUBERNETES / overlay)
            self.assertEqual(rendered.returncode, 0, rendered.stderr)
            theirs = list(manifests.yaml.safe_load_all(rendered.stdout))
            key = lambda thing: (thing["kind"], thing["metadata"]["name"].split("-picker-")[0])
            ours = sorted((thing["kind"], thing["metadata"]["name"].removesuffix("-picker"))
                          for thing in self.objects(overlay))
            self.assertEqual(sorted(map(key, theirs)), ours)
            for thing in theirs:
                if thing["kind"] != "Namespace":
                    self.assertEqual(thing["metadata"]["namespace"], "wideep")
                for container in containers(pod_template(thing)) if pod_template(thing) else []:
                    self.assertEqual(container["image"], "registry.example/wideep:0.1.0")


class Image(unittest.TestCase):
    def test_it_has_every_library_that_wideep_is_linked_to(self):
        text = (ROOT / "deploy/Dockerfile").read_text()
        listed = set(re.findall(r"\blib[a-z0-9.+-]+", text.split("--no-install-recommends")[1].split("&&")[0]))
        depends = run("dpkg-query", "-W", "-f", "${Package}\t${Pre-Depends}, ${Depends}\n")
        needs = {}
        for line in depends.stdout.splitlines():
            package, others = line.split("\t")
            needs[package] = set(re.findall(r"([a-z0-9][a-z0-9.+-]+)(?::any)?(?: \([^)]*\))?", others))
        installed, open_ones = set(), listed | {"libc6"}
        while open_ones:
            package = open_ones.pop()
            installed.add(package)
            open_ones |= {other for other in needs.get(package, ()) if other in needs} - installed
        linked = set(re.findall(r"=> (/\S+)", run("ldd", WIDEEP).stdout))
        self.assertGreater(len(linked), 20)
        names = {path for file in linked for path in (file, os.path.realpath(file))}
        owners = run("dpkg-query", "-S", *names, *(name.removeprefix("/usr") for name in names)).stdout
        packages = set(re.findall(r"^([a-z0-9.+-]+):", owners, re.M))
        self.assertGreater(len(packages), 8)
        self.assertEqual(packages - installed, set())


class Monitoring(unittest.TestCase):
    def test_the_dashboard_is_one(self):
        board = json.loads((ROOT / "deploy/grafana/wideep.json").read_text())
        places = [panel["gridPos"] for panel in board["panels"]]
        self.assertEqual(len({(p["x"], p["y"]) for p in places}), len(places), "panels lie on each other")
        for panel in board["panels"]:
            if panel["type"] != "row":
                self.assertTrue(panel["targets"], panel["title"])

    def test_promtool_accepts_the_rules_cut_out_as_the_file_says(self):
        path = KUBERNETES / "monitoring/alerts.yaml"
        command = re.search(r"sed '[^']*'", path.read_text()).group(0)
        rules = run("sh", "-c", f"{command} {path}")
        self.assertEqual(manifests.yaml.safe_load(rules.stdout), manifests.documents(path)[0]["spec"])
        promtool = find_promtool()
        if not promtool:
            self.skipTest("no promtool")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(rules.stdout)
            file.flush()
            checked = run(promtool, "check", "rules", file.name)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


def find_promtool():
    """One that is there, or Debian's, unpacked and not installed: a Prometheus need not run here."""
    folder = INTEROP / "promtool"
    own = folder / "usr/bin/promtool"
    if shutil.which("promtool") or own.exists():
        return shutil.which("promtool") or own
    folder.mkdir(parents=True, exist_ok=True)
    script = "apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb"
    with contextlib.suppress(subprocess.TimeoutExpired):  # a mirror that does not answer
        subprocess.run(["sh", "-c", script], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    return own if own.exists() else None


class Units(unittest.TestCase):
    def test_systemd_accepts_the_unit(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("no systemd-analyze")
        with tempfile.TemporaryDirectory() as folder:
            unit = pathlib.Path(folder) / "wideep@x.service"
            unit.write_text((SYSTEMD / "wideep@.service").read_text().replace("/usr/bin/wideep", WIDEEP))
            checked = run("systemd-analyze", "verify", "--man=no", unit)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
