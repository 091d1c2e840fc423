"""What fields the kinds in cluster/kuberay have, as JSON Schemas that refuse any other.

Names, types, what is required and what may stand there: written down from KubeRay's types (ray.io/v1, RayCluster and
RayJob, release 1.6) and Kubernetes' own (core/v1, batch/v1, rbac/v1, networking/v1) as far as the manifests use them.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"}
TEXTS: Schema = {"type": "array", "items": TEXT, "minItems": 1}
PAIRS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY: Schema = {"type": "string", "pattern": "^[0-9]+(m|Ki|Mi|Gi|Ti)?$"}


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


META = closed(name=NAME, generateName=TEXT, namespace=NAME, labels=PAIRS, annotations=PAIRS)
AMOUNTS = {"type": "object", "additionalProperties": QUANTITY}
RESOURCES = closed("requests limits", requests=AMOUNTS, limits=AMOUNTS)
PROFILE = closed("type", type=one_of("RuntimeDefault", "Localhost", "Unconfined"))
CONTAINER_SECURITY = closed(
    allowPrivilegeEscalation=FLAG,
    readOnlyRootFilesystem=FLAG,
    privileged=FLAG,
    capabilities=closed(drop=TEXTS, add=TEXTS),
)
POD_SECURITY = closed(runAsNonRoot=FLAG, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT, seccompProfile=PROFILE)
KEY_REF = closed("name key", name=NAME, key=TEXT, optional=FLAG)
VARIABLE = closed("name", name=TEXT, value={"type": "string"}, valueFrom=closed(secretKeyRef=KEY_REF))
PROBE = closed(
    "httpGet",
    httpGet=closed("path port", path=TEXT, port=COUNT),
    initialDelaySeconds=COUNT,
    periodSeconds=COUNT,
    timeoutSeconds=COUNT,
    failureThreshold=COUNT,
)
MOUNT = closed("name mountPath", name=NAME, mountPath=TEXT, readOnly=FLAG)
CONTAINER = closed(
    "name image resources securityContext",
    name=NAME,
    image={"type": "string", "pattern": "^[^:]+/[^:]+:[^:]+$"},
    args=TEXTS,
    command=TEXTS,
    ports=many(closed("containerPort name", containerPort=COUNT, name=NAME)),
    env=many(VARIABLE),
    resources=RESOURCES,
    securityContext=CONTAINER_SECURITY,
    readinessProbe=PROBE,
    livenessProbe=PROBE,
    volumeMounts=many(MOUNT),
)
VOLUME = closed(
    "name", name=NAME, emptyDir=closed(medium=one_of("Memory"), sizeLimit=QUANTITY), configMap=closed("name", name=NAME)
)
POD = closed(
    "metadata spec",
    metadata=META,
    spec=closed(
        "containers securityContext serviceAccountName",
        serviceAccountName=NAME,
        automountServiceAccountToken=FLAG,
        restartPolicy=one_of("Never", "OnFailure", "Always"),
        securityContext=POD_SECURITY,
        containers=many(CONTAINER),
        volumes=many(VOLUME),
    ),
)
CLUSTER_SPEC = closed(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=closed(mode=one_of("disabled", "token"), secretName=NAME),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(
        idleTimeoutSeconds=COUNT,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        resources=RESOURCES,
        securityContext=CONTAINER_SECURITY,
    ),
    headGroupSpec=closed(
        "template",
        serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
        enableIngress=FLAG,
        rayStartParams=PAIRS,
        template=POD,
    ),
    workerGroupSpecs=many(
        closed(
            "groupName minReplicas maxReplicas template",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=PAIRS,
            template=POD,
        )
    ),
)
JOB_SPEC = closed(
    "rayClusterSpec entrypoint",
    entrypoint=TEXT,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    rayClusterSpec=CLUSTER_SPEC,
)
CRON_SPEC = closed(
    "schedule jobTemplate",
    schedule={"type": "string", "pattern": r"^[\d*,/-]+( [\d*,/-]+){4}$"},
    timeZone=TEXT,
    concurrencyPolicy=one_of("Allow", "Forbid", "Replace"),
    startingDeadlineSeconds=COUNT,
    successfulJobsHistoryLimit=COUNT,
    failedJobsHistoryLimit=COUNT,
    jobTemplate=closed("spec", spec=closed("template", backoffLimit=COUNT, activeDeadlineSeconds=COUNT, template=POD)),
)
SELECTOR = closed(matchLabels=PAIRS)
POLICY_SPEC = closed(
    "podSelector policyTypes",
    podSelector=SELECTOR,
    policyTypes=many(one_of("Ingress", "Egress")),
    ingress=many(
        closed(
            **{"from": many(closed(podSelector=SELECTOR, namespaceSelector=SELECTOR))},
            ports=many(closed("protocol port", protocol=one_of("TCP", "UDP"), port=COUNT)),
        )
    ),
)
RULE = closed(
    "apiGroups resources verbs", apiGroups={"type": "array", "items": {"type": "string"}}, resources=TEXTS, verbs=TEXTS
)


def _kind(api: str, **parts: Schema) -> Schema:
    fields = {"apiVersion": one_of(api), "kind": TEXT, "metadata": META, **parts}
    return closed(" ".join(fields), **fields)


KINDS: dict[str, Schema] = {
    "RayCluster": _kind("ray.io/v1", spec=CLUSTER_SPEC),
    "RayJob": _kind("ray.io/v1", spec=JOB_SPEC),
    "CronJob": _kind("batch/v1", spec=CRON_SPEC),
    "NetworkPolicy": _kind("networking.k8s.io/v1", spec=POLICY_SPEC),
    "ServiceAccount": _kind("v1", automountServiceAccountToken=FLAG),
    "Role": _kind("rbac.authorization.k8s.io/v1", rules=many(RULE)),
    "RoleBinding": _kind(
        "rbac.authorization.k8s.io/v1",
        roleRef=closed("apiGroup kind name", apiGroup=TEXT, kind=TEXT, name=NAME),
        subjects=many(closed("kind name", kind=TEXT, name=NAME)),
    ),
}
