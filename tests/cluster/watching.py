"""What is asked of the pods that watch nights, beside what is asked of all: a policy like those in policies.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import yaml
from kustomize import ROOT, Manifest
from policies import Pod, matches, pods

from bizllm.watch.exporter import HEALTH_PATH

ACCOUNT = "bizllm-watcher"
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def scrape_job() -> str:
    """The name that the alert of a silent exporter goes by."""
    rules = yaml.safe_load((ROOT / "infra/monitoring/bizllm.rules.yaml").read_text())["groups"]
    (alert,) = [rule for group in rules for rule in group["rules"] if rule.get("alert") == "BizllmExporterDown"]
    (name,) = set(re.findall(r'up\{job="(\w+)"\}', alert["expr"]))
    return name


def watched(manifests: list[Manifest]) -> Iterator[str]:
    """One exporter, which Prometheus alone reaches and finds; Kubernetes starts it anew where it hangs."""
    for pod in pods(manifests):
        if (pod.spec.get("serviceAccountName") == ACCOUNT) != (pod.verb in ("metrics", "check")):
            yield f"{pod.place}: {ACCOUNT} is for who watches, and nobody else"
        if pod.verb == "check":
            sources = [source.get("secretRef", {}) for source in pod.spec["containers"][0].get("envFrom", [])]
            if {"name": "bizllm-notify", "optional": True} not in sources:
                yield f"{pod.place}: knows nobody to tell"
        if pod.verb == "metrics":
            yield from _exporter(manifests, pod)


def _exporter(manifests: list[Manifest], pod: Pod) -> Iterator[str]:
    (container,) = pod.spec["containers"]
    words = container["args"]
    said = dict(pairwise(words))
    port = int(said.get("--port", 9464))
    if said.get("--host") != "0.0.0.0":
        yield f"{pod.place}: listens to itself alone"
    names = {one["name"]: one["containerPort"] for one in container.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe"):
        asks = container.get(probe, {}).get("httpGet", {})
        if asks.get("path") != HEALTH_PATH or names.get(asks.get("port")) != port:
            yield f"{pod.place}: no {probe} that would see a read that hangs"
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Deployment" and spec["template"] is pod.template:
            if (spec["replicas"], spec["strategy"]) != (1, {"type": "Recreate"}):
                yield f"{pod.place}: two of them tell everything twice"
            if not matches(spec["selector"], pod.labels):
                yield f"{pod.place}: its own pods are not its"
        if manifest["kind"] == "PodMonitor" and matches(spec["selector"], pod.labels):
            yield f"{pod.place}: taken for a node of Ray by {manifest['metadata']['name']}"
    walls = [
        m["spec"] for m in manifests if m["kind"] == "NetworkPolicy" and matches(m["spec"]["podSelector"], pod.labels)
    ]
    lets_in = [rule for wall in walls for rule in wall.get("ingress", [])]
    if lets_in != [{"from": [PROMETHEUS], "ports": [{"protocol": "TCP", "port": port}]}]:
        yield f"{pod.place}: is not for Prometheus, and it alone"
    services = [
        m
        for m in manifests
        if m["kind"] == "Service"
        and [p.place for p in pods(manifests) if m["spec"]["selector"].items() <= p.labels.items()] == [pod.place]
        and [names.get(one["targetPort"]) for one in m["spec"]["ports"]] == [port]
    ]
    scrapes = [
        service["metadata"]["labels"].get(monitor["spec"]["jobLabel"])
        for monitor in manifests
        if monitor["kind"] == "ServiceMonitor"
        for service in services
        if matches(monitor["spec"]["selector"], service["metadata"]["labels"])
        and {one["port"] for one in monitor["spec"]["endpoints"]} == {one["name"] for one in service["spec"]["ports"]}
    ]
    if scrapes != [scrape_job()]:
        yield f"{pod.place}: scraped as {scrapes}, and the alerts look for {scrape_job()}"
