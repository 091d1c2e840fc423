"""What Ray's own autoscaler makes of our clusters: which machines it asks for, and what it does without them."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from typing import Any

import yaml
from kustomize import ROOT, overlay
from policies import clusters
from ray._private.label_utils import parse_node_labels_string
from ray.autoscaler._private.constants import RAY_AUTOSCALER_AVAILABILITY_RECOVERY_S
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.common_pb2 import LabelSelectorOperator
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

GIB = 2**30
Config = dict[str, Any]


def kubernetes(name: str) -> Config:
    """What the autoscaler in the head's pod reads from an overlay's cluster."""
    ((_, spec),) = clusters(overlay(name))
    config: Config = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "x", "namespace": "y"}, "spec": spec})
    return config


def machines() -> Config:
    """cluster/aws, with sizes as EC2 tells them: tests/cluster/test_ray_up.py holds them against moto's."""
    config: Config = yaml.safe_load((ROOT / "cluster/aws/cluster.yaml").read_text())
    types = config["available_node_types"]
    types["worker"]["resources"] = types["worker-spot"]["resources"] = {"CPU": 8}
    types["worker-gpu"]["resources"] = {"CPU": 8, "GPU": 1}
    return config


def asked(
    config: Config,
    shape: dict[str, float],
    count: int,
    monitor: CloudResourceMonitor | None = None,
    labels: dict[str, str] | None = None,
) -> dict[str, int]:
    """The machines that autoscaler v2 starts for `count` tasks of that shape on an empty cluster."""
    read = AutoscalingConfig(copy.deepcopy(config), skip_content_hash=True)
    monitor = monitor or CloudResourceMonitor()
    equal = [(key, LabelSelectorOperator.LABEL_OPERATOR_IN, [value]) for key, value in (labels or {}).items()]
    request = ResourceRequestUtil.make(shape, label_selectors=[equal] if equal else None)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=read.get_node_type_configs(),
            max_num_nodes=read.get_max_num_worker_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count([request] * count),
            cloud_resource_availabilities=monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def after(name: str, status: int) -> CloudResourceMonitor:
    """The autoscaler's memory once a machine of that kind came to `status`."""
    monitor = CloudResourceMonitor()
    monitor.notify([InstanceUpdateEvent(instance_type=name, new_instance_status=status)])
    return monitor


# -- Kubernetes ----------------------------------------------------------------------------------------------------


def test_ray_reads_sizes_and_labels_from_the_pods() -> None:
    types = kubernetes("gpu")["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0, "no work on the head"
    assert types["cpu"]["resources"] == {"CPU": 4, "memory": 16 * GIB}
    assert types["gpu"]["resources"] == {"CPU": 6, "GPU": 1, "memory": 24 * GIB}
    assert types["gpu"]["idle_timeout_s"] == 300 and kubernetes("gpu")["idle_timeout_minutes"] == 10
    for node in types.values():
        spelled = ",".join(f"{key}={value}" for key, value in node["labels"].items())
        assert parse_node_labels_string(spelled) == node["labels"], "as KubeRay hands them to `ray start --labels`"


def test_who_asks_for_a_gpu_or_a_label_gets_such_a_pod() -> None:
    assert asked(kubernetes("gpu"), {"CPU": 1}, 1) == {"cpu": 2, "gpu": 1}, "the floor"
    assert asked(kubernetes("gpu"), {"CPU": 1, "GPU": 1}, 2) == {"cpu": 2, "gpu": 2}
    assert asked(kubernetes("gpu"), {"CPU": 4}, 6) == {"cpu": 5, "gpu": 1}, "no GPU is started for work without one"
    assert asked(kubernetes("gpu"), {"CPU": 6}, 2, labels={"ray.io/accelerator-type": "L4"}) == {"cpu": 2, "gpu": 2}


def test_spot_comes_first_and_machines_on_demand_where_there_is_none() -> None:
    config = kubernetes("spot")
    assert asked(config, {"CPU": 4}, 5) == {"cpu": 1, "spot": 4}
    without = after("spot", Instance.ALLOCATION_TIMEOUT)
    assert asked(config, {"CPU": 4}, 5, without) == {"cpu": 5}
    for name in without._last_unavailable_timestamp:
        without._last_unavailable_timestamp[name] -= RAY_AUTOSCALER_AVAILABILITY_RECOVERY_S
    assert asked(config, {"CPU": 4}, 5, without) == {"cpu": 1, "spot": 4}, "tried again later"


def test_a_pod_without_a_machine_is_given_up_in_time() -> None:
    """Ray's own default is an hour. The autoscaler's container reads the setting when it starts."""
    ((_, cluster),) = clusters(overlay("spot"))
    (setting,) = cluster["autoscalerOptions"]["env"]
    module = "ray.autoscaler.v2.instance_manager.config"
    asks = f"from {module} import InstanceReconcileConfig as C; print(C().allocate_status_timeout_s)"
    for more, expected in (({}, "3600"), ({setting["name"]: setting["value"]}, "600")):
        done = subprocess.run([sys.executable, "-c", asks], env=os.environ | more, capture_output=True, text=True)
        assert done.stdout.split() == [expected], done.stderr


# -- ray up --------------------------------------------------------------------------------------------------------


def test_ray_up_asks_for_spot_first_and_keeps_a_floor_on_demand() -> None:
    assert asked(machines(), {"CPU": 8}, 6) == {"worker": 2, "worker-spot": 4}
    assert asked(machines(), {"CPU": 1, "GPU": 1}, 1) == {"worker": 2, "worker-gpu": 1}
    assert asked(machines(), {"CPU": 8}, 3, labels={"bizllm.io/pool": "cpu"}) == {"worker": 3}
