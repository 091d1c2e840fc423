"""What the cluster that Ray is connected to has: its nodes, what of them is free, whether it grows."""

from __future__ import annotations

import json

import ray
import ray.util.client
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.state import available_resources_per_node
from ray._private.state import state as cluster_state
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get

from bizllm.infer.pools import Node, Room

PRIVATE = {"bizllm-private": "true"}  # the label of a local Ray that a run started for itself
LOOK_WAIT_S = 60.0  # for a process of the cluster to look, where this one is outside


def look() -> Room:
    """The cluster now. From outside (`ray://`) a process of the cluster looks, which takes no CPU."""
    if not ray.util.client.ray.is_connected():
        return _look()
    try:
        room: Room = ray.get(ray.remote(num_cpus=0)(_look).remote(), timeout=LOOK_WAIT_S)
    except RayError:  # where none can be started, what is free is not known, nor whether it grows
        return Room(tuple(_node(node, {}) for node in ray.nodes() if node["Alive"]), grows=True)
    return room


def _look() -> Room:
    free = available_resources_per_node()
    nodes = tuple(_node(node, free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"])
    private = any(PRIVATE.items() <= node.labels.items() for node in nodes)
    most = cluster_state.get_max_resources_from_cluster_config()
    return Room(nodes, not private and (most is not None or _may_grow()), most, private)


def _node(told: dict, free: dict) -> Node:  # type: ignore[type-arg]
    has = told["Resources"]
    return Node(
        has.get("CPU", 0.0),
        has.get("GPU", 0.0),
        free.get("CPU", 0.0),
        free.get("GPU", 0.0),
        has.get("memory", 0.0),
        dict(told["Labels"]),
    )


def _may_grow() -> bool:
    """Whether an autoscaler may add nodes; also where nobody tells. A cluster without one has a monitor that calls
    each node a type of its own."""
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or "{}")
    report = status.get("autoscaler_report")
    return report is None or any(not name.startswith("node_") for name in report.get("active_nodes", {}))
