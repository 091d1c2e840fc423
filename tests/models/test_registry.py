"""The registry on a real SQLite file and a real MLflow server: versions, aliases and their history, fetching."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from bizllm.errors import RunError, UserError
from bizllm.models.content import content_hash
from bizllm.models.registry import ModelVersion, Registry, default_uri

Register = Callable[..., ModelVersion]


def register(models: Registry, folder: Path, weights: bytes = b"weights", name: str = "churn") -> ModelVersion:
    """A new version with weights of its own."""
    (folder / "model.safetensors").write_bytes(weights)
    return models.register(
        name,
        folder,
        metrics={"validation.macro_f1": 0.91, "test.macro_f1": 0.9},
        params={"lr": 1e-4, "method": "full"},
        tags={"base": "builtin:minilm", "license": "MIT"},
        intervals={"test.macro_f1": (0.85, 0.95)},
        card="# churn",
    )


# -- where it is --------------------------------------------------------------------------------------------------


def test_the_first_that_is_named_counts(tmp_path: Path) -> None:
    server = {"MLFLOW_TRACKING_URI": "http://other:5000/"}
    assert default_uri("http://host:5000", server, str(tmp_path)) == "http://host:5000"
    assert default_uri(None, server, str(tmp_path)) == "http://other:5000"
    assert default_uri(None, {}, str(tmp_path)) == f"sqlite:///{tmp_path}/registry.db"


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"sqlite:///{tmp_path}/out/m.db"
    assert default_uri("out/m.db", {}, "x") == default_uri("sqlite:///out/m.db", {}, "x") == expected
    assert default_uri(expected, {}, "x") == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("file:///tmp/mlruns", "closed its store of plain files"),
        ("postgresql://user:secret@host/db", "is a database; expected the address of the MLflow server"),
        ("http://", "expected an MLflow server"),
        ("sqlite://x.db", "expected an MLflow server"),
        (".", "is a folder"),
    ],
)
def test_what_is_no_registry_is_the_users_error(given: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        default_uri(given, {}, "x", place="j.yaml:2 registry")
    assert says in str(caught.value) and str(caught.value).startswith("j.yaml:2 registry: ")
    assert "secret" not in str(caught.value)


def test_a_warehouse_in_object_storage_needs_a_server() -> None:
    with pytest.raises(UserError, match="can't lie in object storage"):
        default_uri(None, {}, "s3://lake/warehouse")


# -- versions and aliases -----------------------------------------------------------------------------------------


def test_a_version_holds_what_it_was_given(registry: str, folder: Path) -> None:
    made = register(Registry(registry), folder)
    found = Registry(registry).get("churn", "1")
    assert found == made
    assert found.metrics == {"validation.macro_f1": 0.91, "test.macro_f1": 0.9}
    assert found.params == {"lr": "0.0001", "method": "full"}
    assert found.tags["license"] == "MIT" and found.card == "# churn"
    assert found.content_hash == content_hash(folder)
    assert found.interval("test.macro_f1") == (0.85, 0.95) and found.interval("validation.macro_f1") is None
    assert json.loads(json.dumps(found.to_dict()))["intervals"] == {"test.macro_f1": [0.85, 0.95]}


def test_files_lie_beside_the_database_whatever_the_working_directory(
    registry: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    made = register(Registry(registry), folder)
    assert Path(made.source).is_relative_to(tmp_path / "out" / "registry" / "churn")
    assert list(elsewhere.iterdir()) == []
    assert Registry(registry).fetch("churn", "1") == Path(made.source)
    assert content_hash(Path(made.source)) == made.content_hash


def test_versions_are_in_order_beyond_nine(registry: str, folder: Path) -> None:
    models = Registry(registry)
    for _ in range(11):
        register(models, folder)
    models.set_alias("churn", "champion", "10")
    register(models, folder, name="another")
    assert [version.version for version in models.versions("churn")] == [str(number) for number in range(1, 12)]
    another, churn = models.models()
    assert (another.name, another.aliases, another.newest, another.shown.version) == ("another", {}, "1", "1")
    assert (churn.name, churn.aliases, churn.newest, churn.shown.version) == ("churn", {"champion": "10"}, "11", "10")


def test_rollback_goes_back_one_holder_each_time(registry: str, folder: Path) -> None:
    models = Registry(registry)
    for _ in range(4):
        register(models, folder)
    held = ["1", "3", "2", "4"]
    replaced = [models.set_alias("churn", "champion", version).replaced for version in held]
    assert replaced == [None, "1", "3", "2"]
    assert models.set_alias("churn", "champion", "4").replaced == "4", "again the same changes nothing"
    assert models.history("churn") == ["1", "3", "2"]

    assert [models.rollback("churn").version for _ in range(2)] == ["2", "3"]
    assert models.get("churn").version == "3" and models.get("churn").aliases == ("champion",)
    models.set_alias("churn", "champion", "4")
    assert models.history("churn") == ["1", "3"], "a promotion after a rollback goes on from there"
    assert [models.rollback("churn").version for _ in range(2)] == ["3", "1"]
    with pytest.raises(UserError, match="version 1 is the first that held champion"):
        models.rollback("churn")
    assert models.get("churn").version == "1"


def test_a_promotion_that_was_cut_off_leaves_no_step_to_nowhere(registry: str, folder: Path) -> None:
    """The history is written before the alias: killed between, it ends with the present holder."""
    models = Registry(registry)
    for _ in range(3):
        register(models, folder)
    models.set_alias("churn", "champion", "1")
    models.set_alias("churn", "champion", "2")
    with models._asking() as client:
        client.set_registered_model_tag("churn", "bizllm.alias.champion.history", "1,2")
    assert models.rollback("churn").version == "1"


def test_a_deleted_version_is_skipped_on_the_way_back(registry: str, folder: Path) -> None:
    models = Registry(registry)
    for version in ("1", "2", "3"):
        register(models, folder)
        models.set_alias("churn", "champion", version)
    with models._asking() as client:
        client.delete_model_version("churn", "2")
    assert models.rollback("churn").version == "1"


def test_aliases_do_not_share_a_history(registry: str, folder: Path) -> None:
    models = Registry(registry)
    for _ in range(2):
        register(models, folder)
    models.set_alias("churn", "champion", "1")
    models.set_alias("churn", "trial", "2")
    models.set_alias("churn", "champion", "2")
    assert models.get("churn", "2").aliases == ("champion", "trial")
    assert models.history("churn") == ["1"] and models.history("churn", "trial") == []


@pytest.mark.parametrize(
    ("name", "which", "says"),
    [
        ("chrun", "champion", "no such model in sqlite:.*it has churn; did you mean 'churn'"),
        ("churn", "chmpion", "no such alias of churn; it has champion; did you mean 'champion'"),
        ("churn", "7", "no such version of churn; it has 1"),
        ("it's", "1", "no such model"),
    ],
)
def test_unknown_names_are_the_users_error(registry: str, folder: Path, name: str, which: str, says: str) -> None:
    models = Registry(registry)
    register(models, folder)
    models.set_alias("churn", "champion", "1")
    with pytest.raises(UserError, match=f"j.yaml:3 steps.a.model: .*{says}"):
        models.get(name, which, place="j.yaml:3 steps.a.model")


@pytest.mark.parametrize("alias", ["latest", "v3", "3", "a b", ""])
def test_an_alias_must_not_look_like_a_version(registry: str, folder: Path, alias: str) -> None:
    models = Registry(registry)
    register(models, folder)
    with pytest.raises(UserError, match="expected an alias of letters"):
        models.set_alias("churn", alias, "1")


# -- what is not there --------------------------------------------------------------------------------------------


def test_a_registry_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no registry yet"):
        Registry(default_uri(None, {}, str(tmp_path / "out"))).models()
    assert not (tmp_path / "out").exists()


def test_another_file_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("no database at all")
    with pytest.raises(UserError, match="is no SQLite file"):
        Registry(default_uri(str(tmp_path / "notes.db"), {}, "x")).models()


@pytest.mark.parametrize("listens", [True, False])
def test_a_server_that_does_not_answer_fails_in_bounded_time(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bizllm.models.registry.ANSWER_WITHIN_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        started = time.monotonic()
        with pytest.raises(UserError, match="the MLflow server does not answer") as caught:
            Registry(f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}").models()
        assert time.monotonic() - started < 5
    assert "secret" not in str(caught.value)


def test_a_copy_that_fails_leaves_no_version(registry: str, folder: Path) -> None:
    models = Registry(registry)
    register(models, folder)
    (folder / "notes.txt").symlink_to(folder / "nowhere")  # stands in for any file that can't be copied
    with pytest.raises(RunError, match=r"^registry sqlite:"):
        register(models, folder)
    assert [version.version for version in models.versions("churn")] == ["1"]
    with models._asking() as client:
        runs = client.search_runs([models.experiment("churn")])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


def test_mlflow_prints_nothing_and_sends_nothing(tmp_path: Path, folder: Path) -> None:
    """A first registry, with its migrations, in a process of its own."""
    code = f"""
import os, pathlib
from bizllm.models.registry import Registry, default_uri
models = Registry(default_uri(None, {{}}, {str(tmp_path / "new")!r}))
models.register("churn", pathlib.Path({str(folder)!r}), metrics={{}}, params={{}}, tags={{}})
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "new"]


# -- a server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server of its own process, which hands out artifacts itself."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/server.db", "--artifacts-destination", str(home / "files")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        command, cwd=home, env={**os.environ, **quiet}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def fetch_in_process(uri: str, cache: str) -> str:
    """The folder that another process gets."""
    return str(Registry(uri).fetch("churn", "champion", Path(cache)))


@pytest.mark.slow
def test_a_server_serves_as_a_file_does(server: str, folder: Path, tmp_path: Path) -> None:
    models = Registry(server)
    first, second = register(models, folder, b"first"), register(models, folder, b"second")
    models.set_alias("churn", "champion", "1")
    models.set_alias("churn", "champion", "2")
    assert models.rollback("churn").version == "1"
    assert models.get("churn") == Registry(server).get("churn", "1")
    assert models.get("churn").metrics["test.macro_f1"] == 0.9

    cache = tmp_path / "cache"
    with get_context("spawn").Pool(2) as pool:
        found = pool.starmap(fetch_in_process, [(server, str(cache))] * 2)
    (place,) = {Path(path) for path in found}
    assert (place / "model.safetensors").read_bytes() == b"first"
    assert content_hash(place) == first.content_hash != second.content_hash
    assert list(cache.iterdir()) == [place], "nothing half-loaded is left"
    written = place.stat().st_mtime_ns
    assert models.fetch("churn", "1", cache) == place and place.stat().st_mtime_ns == written

    with pytest.raises(RunError, match="is not what was registered"):
        models.download(second.source, first.content_hash, cache)
    assert list(cache.iterdir()) == [place]
    with pytest.raises(UserError, match=f"no such model in {server}"):
        models.get("chrun")
