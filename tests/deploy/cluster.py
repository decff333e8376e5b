"""Pods without Kubernetes: each has a network and a root file system of its own on this machine, and what the kubelet,
the controller of LeaderWorkerSet and the name service do to pods is done here. Needs root; `enter()` says if it cannot be.
"""
import http.client
import os
import pathlib
import select
import socket
import subprocess
import sys
import time

import manifests
from manifests import ROOT, containers, selects

PATIENCE_S = 240
NODE = "10.79.0.1"
# What the CPU limit of a container does to --threads on a machine of sixteen cores is done by hand here.
LIMITS = {"WIDEEP_THREADS": "1"}


def enter():
    """Starts this program again in a network of its own; everything in it ends with it. False: it may not."""
    if os.environ.get("WIDEEP_TEST_CLUSTER") != "1":
        inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        trial = "ip link add trial type veth peer name other && ip link add bridge type bridge"
        if subprocess.run(inside + ["sh", "-c", trial], stderr=subprocess.DEVNULL).returncode != 0:
            return False
        os.environ["WIDEEP_TEST_CLUSTER"] = "1"
        os.execvp(inside[0], inside + [sys.executable] + sys.argv)
    for command in ("link set lo up", "link add pods type bridge", f"addr add {NODE}/16 dev pods", "link set pods up"):
        subprocess.run(["ip", *command.split()], check=True)
    return True


def wait_for(what, condition, *watched, patience_s=PATIENCE_S):
    """What the condition gives, once it is true; the processes are expected to live until then."""
    give_up = time.monotonic() + patience_s
    while True:
        for process in watched:
            assert process.poll() is None, f"{what}: {process.args[-3:]} ended with {process.returncode}"
        value = condition()
        if value:
            return value
        assert time.monotonic() < give_up, f"not within {patience_s} s: {what}"
        select.select([], [], [], 0.05)


def get(host, port, path, headers=None, method="GET", body=None):
    """(status, headers, body); status 0: nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    except OSError:
        return 0, {}, ""
    finally:
        connection.close()


class Names:
    """The name service: a hosts file that all pods see."""

    def __init__(self, folder):
        self.path = folder / "hosts"
        self.path.write_text("")
        self.of_pods = {}  # name -> address, from a pod's start on
        self.of_services = {}  # name -> addresses of the pods that are ready

    def publish(self):
        lines = ["127.0.0.1 localhost"] + [f"{address} {name}" for name, address in self.of_pods.items()]
        lines += [f"{address} {name}" for name, addresses in self.of_services.items() for address in addresses]
        # In place: pods see this file, not its folder.
        self.path.write_text("\n".join(lines) + "\n")


class Pod:
    """A network with an address, and processes in it."""

    number = 1

    def __init__(self, cluster, name, template=None, environment=None):
        Pod.number += 1
        self.cluster, self.name, self.template = cluster, name, template
        self.address = f"10.79.0.{Pod.number}"
        self.environment = environment or {}
        self.device = f"pod{Pod.number}"
        self.folder = cluster.folder / f"{name}-{Pod.number}"
        self.folder.mkdir()
        self.processes = {}
        self.network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = pathlib.Path("/proc/self/ns/net").readlink()
        wait_for("a network", lambda: pathlib.Path(f"/proc/{self.network.pid}/ns/net").readlink() != own)
        inside = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "ip"]
        for command in (["ip", "link", "add", self.device, "type", "veth", "peer", "name", "eth0",
                         "netns", str(self.network.pid)],
                        ["ip", "link", "set", self.device, "master", "pods", "up"],
                        inside + ["addr", "add", f"{self.address}/16", "dev", "eth0"],
                        inside + ["link", "set", "eth0", "up"], inside + ["link", "set", "lo", "up"]):
            subprocess.run(command, check=True)
        cluster.names.of_pods[name] = self.address
        cluster.names.publish()

    def run(self, name, words, environment, mounts, user=64205, etc=None):
        """A process as a container has it: `mounts` are (folder here, path there, "ro" or "rw")."""
        root = self.folder / f"root-{name}"
        root.mkdir()
        files = {"/etc/hosts": self.cluster.names.path, "/etc/resolv.conf": self.cluster.folder / "resolv.conf",
                 "/etc/nsswitch.conf": self.cluster.folder / "nsswitch.conf", **(etc or {})}
        script = ["set -e", "mount --make-rprivate /", f"mount -t tmpfs none {root}", f"cd {root}",
                  "mkdir usr proc dev sys etc tmp", "ln -s usr/lib lib", "ln -s usr/lib64 lib64", "ln -s usr/bin bin",
                  "for name in usr proc dev sys etc; do mount --rbind /$name $name; done",
                  "touch wideep", f"mount --bind {self.cluster.wideep} wideep"]
        for path, source in files.items():
            script.append(f"mount --bind {source} .{path}")
        for source, path, mode in mounts:
            script += [f"mkdir -p .{path}", f"mount --bind {source} .{path}"]
            if mode == "ro":
                script.append(f"mount -o remount,ro,bind .{path}")
        script += ["mount -o remount,ro .", 'cd /; root=$1; shift; exec /usr/sbin/chroot "$root" /usr/bin/setpriv --reuid '
                   f"{user} --regid {user} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \"$@\""]
        command = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "unshare", "--mount", "sh", "-c",
                   "\n".join(script), "sh", str(root), "/wideep", *words]
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                command, env={"PATH": "/usr/bin:/usr/sbin", "HOSTNAME": self.name, **environment}, stdout=log, stderr=log)
        return self.processes[name]

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def start(self):
        """Its containers, as the kubelet starts them."""
        for container in containers(self.template):
            environment = {**LIMITS, **self.environment}
            for item in container.get("env", []):
                assert item["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP", item
                environment[item["name"]] = self.address
            words = [expand(word, environment) for word in container["args"]]
            mounts = [(self.cluster.volume(self, mount["name"]), mount["mountPath"], "ro" if mount.get("readOnly") else "rw")
                      for mount in container.get("volumeMounts", [])]
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            self.run(container["name"], words, environment, mounts,
                     self.template["spec"]["securityContext"]["runAsUser"])

    def probe(self, kind):
        """Whether all its containers pass a probe."""
        for container in containers(self.template):
            probe = container.get(kind)
            if probe is None:
                continue
            how = probe.get("httpGet") or probe["tcpSocket"]
            port = next(p["containerPort"] for p in container["ports"] if p["name"] == how["port"])
            if "httpGet" in probe:
                if get(self.address, port, how["path"])[0] != 200:
                    return False
            elif not can_connect(self.address, port):
                return False
        return True

    def vanish(self):
        """As a machine does that loses its power."""
        subprocess.run(["ip", "link", "del", self.device], check=True)

    def stop(self):
        """As the kubelet does: sidecars last. The exit statuses."""
        sidecars = [c["name"] for c in self.template["spec"].get("initContainers", [])] if self.template else []
        order = sorted(self.processes, key=lambda name: name in sidecars)
        statuses = {}
        for name in order:
            self.processes[name].terminate()
        for name in order:
            statuses[name] = self.processes[name].wait(PATIENCE_S)
        self.remove()
        return statuses

    def remove(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.network.kill()
        self.network.wait()
        self.cluster.names.of_pods.pop(self.name, None)
        self.cluster.names.publish()


def expand(word, environment):
    for name, value in environment.items():
        word = word.replace(f"$({name})", value)
    return word


def can_connect(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return True
    except OSError:
        return False


class Cluster:
    """The pods of an overlay."""

    def __init__(self, wideep, folder, objects=()):
        self.wideep, self.folder, self.objects = os.path.abspath(wideep), folder, list(objects)
        (folder / "resolv.conf").write_text("")
        (folder / "nsswitch.conf").write_text("hosts: files\n")
        folder.chmod(0o755)
        self.names = Names(folder)
        self.pods = {}
        self.secrets = {}

    def find(self, kind, name):
        return next(o for o in self.objects if (o["kind"], o["metadata"]["name"]) == (kind, name))

    def secret(self, name, **files):
        self.secrets[name] = files

    def volume(self, pod, name):
        """The folder of a pod's volume, made as the kubelet makes it."""
        folder = pod.folder / f"volume-{name}"
        if folder.exists():
            return folder
        folder.mkdir()
        volume = next(v for v in pod.template["spec"]["volumes"] if v["name"] == name)
        group = pod.template["spec"]["securityContext"]["fsGroup"]
        if "persistentVolumeClaim" in volume:
            return ROOT / "models/demo"
        if "emptyDir" in volume:
            os.chown(folder, 0, group)
            folder.chmod(0o2777)
        elif "configMap" in volume:
            for file, text in self.find("ConfigMap", volume["configMap"]["name"])["data"].items():
                (folder / file).write_text(text)
        else:
            given = self.secrets[volume["secret"]["secretName"]]
            wanted = [item["key"] for item in volume["secret"].get("items", [])] or list(given)
            for file in wanted:
                (folder / file).write_text(given[file])
                os.chown(folder / file, 0, group)
                # fsGroup lets its group read.
                (folder / file).chmod(volume["secret"]["defaultMode"] | 0o040)
        return folder

    def start_group(self, name):
        """A group of a LeaderWorkerSet, with what its controller tells the pods."""
        spec = self.find("LeaderWorkerSet", name)["spec"]["leaderWorkerTemplate"]
        pods = []
        for index in range(spec["size"]):
            pod_name = f"{name}-0" if index == 0 else f"{name}-0-{index}"
            environment = {"LWS_LEADER_ADDRESS": f"{name}-0.{name}.wideep", "LWS_GROUP_SIZE": str(spec["size"]),
                           "LWS_WORKER_INDEX": str(index)}
            pods.append(Pod(self, f"{pod_name}.{name}.wideep", spec["workerTemplate"], environment))
        for pod in pods:
            self.pods[pod.name] = pod
            pod.start()
        return pods

    def start_deployment(self, name):
        pod = Pod(self, name, self.find("Deployment", name)["spec"]["template"])
        self.pods[name] = pod
        pod.start()
        return pod

    def remove(self, pods):
        for pod in pods:
            pod.remove()
            del self.pods[pod.name]

    def update_services(self):
        """The addresses of the pods that are ready, under the names of the headless Services."""
        ready = [pod for pod in self.pods.values() if pod.probe("readinessProbe")]
        for service in self.objects:
            if service["kind"] == "Service" and service["spec"].get("clusterIP") == "None":
                self.names.of_services[service["metadata"]["name"]] = [
                    pod.address for pod in ready
                    if selects(service["spec"]["selector"], pod.template["metadata"]["labels"])]
        self.names.publish()
        return ready

    def wait_until_ready(self, pods):
        for pod in pods:
            wait_for(f"{pod.name} to start", lambda: pod.probe("startupProbe"), *pod.processes.values())
        wait_for("everybody to be ready", lambda: set(pods) <= set(self.update_services()),
                 *(process for pod in pods for process in pod.processes.values()))
        for pod in pods:
            assert pod.probe("livenessProbe"), pod.name

    def close(self):
        for pod in list(self.pods.values()):
            pod.remove()

    def logs(self):
        return "\n".join(f"--- {pod.name} {name}\n{pod.log(name)}" for pod in self.pods.values() for name in pod.processes)
