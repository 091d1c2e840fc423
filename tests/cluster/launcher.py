"""cluster/aws/cluster.yaml, and what Ray's launcher makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.commands import _bootstrap_config

ROOT = Path(__file__).parents[2]


def cluster_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster/aws/cluster.yaml").read_text())
    return loaded


def filled(config: dict[str, Any], home: Path) -> dict[str, Any]:
    """What `ray up` knows before it starts a machine: sizes, key, subnets, security group, machine image."""
    key = home / "ray_bootstrap_key.pem"  # as Ray names it on the head
    key.touch()
    config["auth"]["ssh_private_key"] = str(key)
    for node in config["available_node_types"].values():
        node["node_config"]["KeyName"] = "ray"
    made: dict[str, Any] = _bootstrap_config(config, no_config_cache=True)
    return made
