"""cluster/aws/cluster.yaml: what Ray's own launcher takes and starts, with the profiles that infra/aws makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ParamValidationError
from launcher import ROOT, cluster_file, filled
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE


@pytest.fixture
def config() -> dict[str, Any]:
    return cluster_file()


def parameters(template: str) -> dict[str, str]:
    """Parameter → default of a stack."""
    text = (ROOT / "infra/aws" / template).read_text()
    return dict(re.findall(r"^  (\w+):\n    Type: \w+\n    Default: (\S+)$", text, re.M))


def test_rays_launcher_takes_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="docker_image"):
        validate_config(prepare_config(config | {"docker_image": "x"}))
    with pytest.raises(Exception, match="priorities"):
        config["available_node_types"]["worker"]["priorities"] = 1
        validate_config(prepare_config(config))


def test_rays_own_code_measures_and_starts_every_kind_of_machine(
    config: dict[str, Any], ec2: Any, tmp_path: Path
) -> None:
    """Through boto3, which checks every field of a request against EC2's own description of RunInstances."""
    made = filled(config, tmp_path)
    types = made["available_node_types"]
    cores = {kind: (node["resources"]["CPU"], node["resources"].get("GPU", 0)) for kind, node in types.items()}
    assert cores == {"head": (0, 0), "worker": (8, 0), "worker-spot": (8, 0), "worker-gpu": (8, 1)}
    accelerator = types["worker-gpu"]["labels"]["ray.io/accelerator-type"]
    assert f"accelerator_type:{accelerator}" in types["worker-gpu"]["resources"]

    provider = _get_node_provider(made["provider"], made["cluster_name"], use_cache=False)
    for kind, node in types.items():
        provider.create_node(node["node_config"], {TAG_RAY_USER_NODE_TYPE: kind}, 1)
    started = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            assert tags["ray-cluster-name"] == "bizllm", "what the head may end"
            assert machine["MetadataOptions"]["HttpTokens"] == "required"
            profile = machine["IamInstanceProfile"]["Arn"].partition("/")[2]
            started[tags[TAG_RAY_USER_NODE_TYPE]] = (machine["InstanceType"], machine.get("InstanceLifecycle"), profile)
    assert started == {
        "head": ("m7i.xlarge", None, "bizllm-head"),
        "worker": ("m7i.2xlarge", None, "bizllm-worker"),
        "worker-spot": ("m7i.2xlarge", "spot", "bizllm-worker"),
        "worker-gpu": ("g6.2xlarge", None, "bizllm-worker"),
    }
    wrong = types["worker-spot"]["node_config"] | {"InstanceMarketOption": {"MarketType": "spot"}}
    with pytest.raises(ParamValidationError, match="InstanceMarketOption"):
        provider.create_node(wrong, {TAG_RAY_USER_NODE_TYPE: "worker-spot"}, 1)


def test_spot_is_never_the_only_kind(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    spot, worker = types["worker-spot"], types["worker"]
    assert spot["priority"] > worker.get("priority", 0) and worker["min_workers"] > 0 == spot["min_workers"]
    options = spot["node_config"]["InstanceMarketOptions"]["SpotOptions"]
    assert options["InstanceInterruptionBehavior"] == "terminate" and "MaxPrice" not in options
    same = {key: value for key, value in spot["node_config"].items() if key != "InstanceMarketOptions"}
    assert same == worker["node_config"]
    most = sum(node.get("max_workers", 0) for node in types.values())
    assert config["max_workers"] <= most, "a bound that binds"


def test_gpu_machines_run_the_gpu_image(config: dict[str, Any]) -> None:
    worker = config["available_node_types"]["worker-gpu"]
    assert worker["docker"]["worker_image"] == config["docker"]["image"].replace("-cpu", "-gpu")
    assert worker["docker"]["worker_run_options"] == ["--gpus all"] and worker["min_workers"] == 0


def test_nodes_take_the_profiles_of_the_stack(config: dict[str, Any]) -> None:
    defaults = parameters("access.yaml")
    assert config["cluster_name"] == defaults["ClusterName"], "the head may end machines of this name only"
    for kind, node in config["available_node_types"].items():
        profile = node["node_config"]["IamInstanceProfile"]["Name"]
        assert profile == f"{defaults['Prefix']}-{kind.partition('-')[0]}"
    template = (ROOT / "infra/aws/access.yaml").read_text()
    for kind in ("head", "worker"):
        assert f'InstanceProfileName: !Sub "${{Prefix}}-{kind}"' in template


def test_nodes_are_closed(config: dict[str, Any]) -> None:
    assert config["provider"]["use_internal_ips"] is True
    for node in config["available_node_types"].values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        for disk in node["node_config"]["BlockDeviceMappings"]:
            assert disk["Ebs"]["Encrypted"] is True
    started = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in started
    options = " ".join(config["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options and "RAY_AUTH_TOKEN=" not in options
    (path,) = re.findall(r"RAY_AUTH_TOKEN_PATH=(\S+)", options)
    assert path in config["file_mounts"], "Ray copies the token's file to every node"


def test_all_nodes_ask_silent_ones_alike(config: dict[str, Any]) -> None:
    """Options for head and workers together: set for one alone, Ray ends its tasks (tests/jobs/test_nodes.py)."""
    assert len([option for option in config["docker"]["run_options"] if "keepalive" in option]) == 2
    assert not {"head_run_options", "worker_run_options"} & config["docker"].keys()
