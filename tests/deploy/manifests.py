"""deploy/ as data: kustomizations rendered, containers with their arguments, units with their examples."""
import copy
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SYSTEMD = DEPLOY / "systemd"


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def render(folder):
    """What `kubectl kustomize` makes of a folder, as far as ours use it; namespaces and images apart."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects = []
    for name in plan["resources"]:
        path = folder / name
        objects += render(path) if path.is_dir() else documents(path)
    for generated in plan.get("configMapGenerator", []):
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]},
                        "data": {name: (folder / name).read_text() for name in generated["files"]}})
    return copy.deepcopy(objects)


def pod_template(thing):
    """The metadata and spec of the pods that an object makes, or None."""
    spec = thing.get("spec", {})
    return spec.get("leaderWorkerTemplate", {}).get("workerTemplate") or spec.get("template")


def containers(template):
    spec = template["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def variables(path):
    """An EnvironmentFile of systemd: name -> value."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#;"]
    return dict(line.split("=", 1) for line in lines)


def examples():
    """name -> variables of each example of a unit."""
    return {path.stem: variables(path) for path in sorted((SYSTEMD / "examples").glob("*.env"))}


METRIC = re.compile(r"\b(?:wideep|vllm):[a-z0-9_]+")


def metrics_used():
    """Where it is used, and the name of each metric of the dashboard and the alerts."""
    paths = [DEPLOY / "grafana/wideep.json", KUBERNETES / "monitoring/alerts.yaml"]
    return {(path.name, name) for path in paths for name in METRIC.findall(path.read_text())}
