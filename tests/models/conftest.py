"""Fixtures of the tests of models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bizllm.models.registry import Registry, default_uri


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model's files; small, since nothing that uses it loads the weights."""
    made = tmp_path / "models" / "mine"
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's file without a model: MLflow takes seconds to make one."""
    base = tmp_path_factory.mktemp("registry")
    uri = default_uri(None, {}, str(base))
    Registry(uri).experiment("unused")
    return base / "registry.db"


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path) -> str:
    """URI of a registry of the test's own, in `out` of its folder."""
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(empty_registry, out)
    return default_uri(None, {}, str(out))
