"""`bizllm models` and its functions of the API, on a real registry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import bizllm
from bizllm.cli import app
from bizllm.models.registry import Registry, default_uri


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, ["models", *args], prog_name="bizllm", catch_exceptions=False)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry with three versions of `intent`, promoted in turn, and an unpromoted `mood`."""
    base = tmp_path_factory.mktemp("filled")
    folder = base / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    models = Registry(default_uri(None, {}, str(base / "out")))
    for score in (0.8, 0.85, 0.9):
        made = models.register(
            "intent",
            folder,
            metrics={"validation.macro_f1": 0.7, "test.macro_f1": score},
            params={"lr": 1e-4},
            tags={"base": "builtin:minilm", "license": "Apache-2.0", "data_fingerprint": "f00d"},
            intervals={"test.macro_f1": (score - 0.05, score + 0.05)},
        )
        models.set_alias("intent", "champion", made.version)
    models.register("mood", folder, metrics={"validation.macro_f1": 0.6}, params={}, tags={})
    return base / "out"


@pytest.fixture
def here(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of that registry in ./out, where it is looked for without a word."""
    shutil.copytree(filled, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_list_tells_names_aliases_and_scores(here: Path) -> None:
    intent, mood = json.loads(invoke("list", "--json").stdout)
    assert intent == {
        "name": "intent",
        "aliases": {"champion": "3"},
        "newest": "3",
        "version": "3",
        "metrics": {"validation.macro_f1": 0.7, "test.macro_f1": 0.9},
    }
    assert (mood["name"], mood["aliases"]) == ("mood", {})
    assert bizllm.list_models() == [intent, mood]
    said = invoke()
    assert said.exit_code == 0 and "champion → 3" in said.stdout and "test.macro_f1 0.9" in said.stdout
    assert "validation.macro_f1 0.7" not in said.stdout and "validation.macro_f1 0.6" in said.stdout


def test_show_tells_each_version(here: Path) -> None:
    value = json.loads(invoke("show", "intent", "--json").stdout)
    assert value == bizllm.show_model("intent")
    assert [version["version"] for version in value["versions"]] == ["3", "2", "1"]
    assert value["aliases"] == {"champion": "3"} and value["history"] == {"champion": ["1", "2"]}
    newest = value["versions"][0]
    assert newest["aliases"] == ["champion"] and newest["tags"]["data_fingerprint"] == "f00d"
    assert newest["intervals"]["test.macro_f1"] == pytest.approx([0.85, 0.95])
    said = invoke("show", "intent").stdout
    for words in ("intent 3  champion", "0.9  [0.85, 0.95]", "Apache-2.0", "f00d", "champion before: 1, 2"):
        assert words in said


def test_promote_and_rollback_say_what_they_replaced(here: Path) -> None:
    moved = json.loads(invoke("promote", "intent", "1", "--json").stdout)
    assert moved == {"model": "intent", "alias": "champion", "version": "1", "replaced": "3"}
    assert "champion is version 3, before it was 1" in invoke("rollback", "intent").stdout
    assert bizllm.rollback_model("intent") == {**moved, "version": "2", "replaced": "3"}
    assert "intent: champion is version 2, as before" in invoke("promote", "intent", "2").stdout
    assert "trial is version 1, which had none before" in invoke("promote", "intent", "1", "--alias", "trial").stdout
    assert bizllm.promote_model("intent", 3, alias="trial")["replaced"] == "1"
    assert bizllm.show_model("intent")["aliases"] == {"champion": "2", "trial": "3"}


def test_the_registry_may_be_named(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(here / "out" / "registry.db", here / "moved.db")
    assert invoke("list").exit_code == 2
    assert len(json.loads(invoke("list", "--registry", "moved.db", "--json").stdout)) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/moved.db")
    assert len(bizllm.list_models()) == 2
    assert invoke("--registry", "moved.db", "list").exit_code == 2, "not read over in silence"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["show", "intnt"], "MODEL: 'intnt': no such model in sqlite:"),
        (["promote", "intnt", "1"], "MODEL: 'intnt': no such model in sqlite:"),
        (["promote", "intent", "9"], "VERSION: '9': no such version of intent; it has 1, 2, 3"),
        (["promote", "intent", "1", "--alias", "latest"], "--alias: 'latest': expected an alias"),
        (["rollback", "mood"], "--alias: 'champion': no such alias of mood; it has none"),
        (["list", "--registry", "gone.db"], "gone.db': there is no registry yet"),
        (["list", "--registry", "ftp://host"], "--registry: 'ftp://host': expected an MLflow server"),
    ],
)
def test_wrong_input_is_exit_2(here: Path, args: list[str], says: str) -> None:
    answer = invoke(*args, "--json")
    said: dict[str, Any] = json.loads(answer.stdout)
    assert answer.exit_code == said["status"] == 2
    assert says in said["error"] and says in answer.stderr
