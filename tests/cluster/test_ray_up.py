"""cluster/aws/cluster.yaml: what Ray's own launcher takes, with the profiles that infra/aws makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster/aws/cluster.yaml").read_text())
    return loaded


def parameters(template: str) -> dict[str, str]:
    """Parameter → default of a stack."""
    text = (ROOT / "infra/aws" / template).read_text()
    return dict(re.findall(r"^  (\w+):\n    Type: \w+\n    Default: (\S+)$", text, re.M))


def test_rays_launcher_takes_it(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="docker_image"):
        validate_config(prepare_config(config | {"docker_image": "x"}))


def test_nodes_take_the_profiles_of_the_stack(config: dict[str, Any]) -> None:
    defaults = parameters("access.yaml")
    assert config["cluster_name"] == defaults["ClusterName"], "the head may end machines of this name only"
    profiles = {
        kind: node["node_config"]["IamInstanceProfile"]["Name"] for kind, node in config["available_node_types"].items()
    }
    assert profiles == {kind: f"{defaults['Prefix']}-{kind}" for kind in ("head", "worker")}
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
