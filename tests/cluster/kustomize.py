"""What cluster/kuberay says once kustomize has put it together: `kubectl kustomize`, the real one."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster" / "kuberay"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())


def kubectl() -> str:
    """The one that `make build/kubectl/kubectl` brings, else the machine's own."""
    ours = ROOT / "build/kubectl/kubectl"
    found = str(ours) if ours.exists() else shutil.which("kubectl")
    if found is None:
        assert not os.environ.get("BIZLLM_REQUIRE_KUBECTL"), "no kubectl"
        pytest.skip("no kubectl: make build/kubectl/kubectl")
    return found


@cache
def _built(folder: Path) -> list[Manifest]:
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def built(folder: Path) -> list[Manifest]:
    """The manifests of a folder with a kustomization, to change at will."""
    return copy.deepcopy(_built(folder))


def overlay(name: str) -> list[Manifest]:
    return built(FOLDER / "overlays" / name)


def composed(folder: Path, *components: str) -> list[Manifest]:
    """An overlay of somebody's own, in a folder made for it: the base with these components."""
    folder.mkdir()
    paths = [os.path.relpath(FOLDER / name, folder) for name in ("base", *components)]
    said = {"kind": "Kustomization", "namespace": "theirs", "resources": paths[:1], "components": paths[1:]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(said))
    return built(folder)
