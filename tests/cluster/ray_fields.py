"""What fields Ray's kinds, PodMonitor and ServiceMonitor have, as JSON Schemas that refuse any other.

No schema of these can be had from a package registry. KubeRay's were written down from its API reference and its CRDs
(github.com/ray-project/kuberay: docs/reference/api.md, helm-chart/kuberay-operator/crds at commit 034971da0525, later
than release 1.7.1; read on 2026-11-26): all fields of every object that we use, but for those that Kubernetes itself
defines, which tests check with its own schemas. Since 1.6: RayCronJob, preRunningDeadlineSeconds. Since 1.7: timeZone,
priority. The monitors' fields are the Prometheus Operator's, as far as we use them.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

ANY: Schema = {}  # Kubernetes' own, or not ours
TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
PAIRS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
TEXTS: Schema = {"type": "array", "items": TEXT, "minItems": 1}


def closed(required: str = "", **fields: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


META = closed(
    "name",
    name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    namespace=TEXT,
    labels=PAIRS,
    annotations=PAIRS,
)
GROUP = {"resources": PAIRS, "labels": PAIRS, "rayStartParams": PAIRS, "template": ANY}
HEAD = closed(
    "rayStartParams template",
    headService=ANY,
    enableIngress=FLAG,
    ingressOptions=ANY,
    serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
    **GROUP,
)
WORKERS = closed(
    "groupName rayStartParams template minReplicas maxReplicas",
    suspend=FLAG,
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    scaleStrategy=ANY,
    numOfHosts=COUNT,
    **GROUP,
)
AUTOSCALER = closed(
    resources=ANY,
    image=TEXT,
    imagePullPolicy=TEXT,
    securityContext=ANY,
    idleTimeoutSeconds=COUNT,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    version=one_of("v1", "v2"),
    env=ANY,
    envFrom=ANY,
    volumeMounts=ANY,
    command=TEXTS,
    args=TEXTS,
)
CLUSTER = closed(
    "headGroupSpec",
    upgradeStrategy=closed(type=one_of("Recreate", "None")),
    authOptions=closed(enableK8sTokenAuth=FLAG, secretName=TEXT, mode=one_of("disabled", "token")),
    suspend=FLAG,
    managedBy=one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=PAIRS,
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=ANY,
    historyServerOptions=ANY,
    networkPolicy=ANY,
    tlsOptions=ANY,
    headGroupSpec=HEAD,
    rayVersion=TEXT,
    workerGroupSpecs=many(WORKERS),
)
JOB = closed(
    "",
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    backoffLimit=COUNT,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=ANY,
    metadata=PAIRS,
    clusterSelector=PAIRS,
    submitterConfig=closed(backoffLimit=COUNT),
    managedBy=one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    deletionStrategy=ANY,
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    entrypointResources=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    ttlSecondsAfterFinished=COUNT,
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    suspend=FLAG,
)
CRON = closed(
    "jobTemplate schedule",
    jobTemplate=JOB,
    schedule={"type": "string", "pattern": r"^[\d*,/-]+( [\d*,/-]+){4}$"},
    timeZone=TEXT,
    suspend=FLAG,
)
POD_MONITOR = closed(
    "selector podMetricsEndpoints",
    selector=closed("matchLabels", matchLabels=PAIRS),
    podTargetLabels=TEXTS,
    podMetricsEndpoints=many(closed("port", port=TEXT, path=TEXT, interval=TEXT)),
)

SERVICE_MONITOR = closed(
    "selector endpoints",
    jobLabel=TEXT,
    selector=closed("matchLabels", matchLabels=PAIRS),
    endpoints=many(closed("port", port=TEXT, path=TEXT, interval=TEXT)),
)


def _kind(api: str, kind: str, spec: Schema) -> Schema:
    return closed("apiVersion kind metadata spec", apiVersion=one_of(api), kind=one_of(kind), metadata=META, spec=spec)


KINDS: dict[str, Schema] = {
    "RayCluster": _kind("ray.io/v1", "RayCluster", CLUSTER),
    "RayJob": _kind("ray.io/v1", "RayJob", JOB),
    "RayCronJob": _kind("ray.io/v1", "RayCronJob", CRON),
    "PodMonitor": _kind("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
    "ServiceMonitor": _kind("monitoring.coreos.com/v1", "ServiceMonitor", SERVICE_MONITOR),
}
