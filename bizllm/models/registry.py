"""Registered models: numbered versions with their metrics and card, and aliases such as `champion`, kept by MLflow.

The embedded default is a SQLite file beside the warehouse, with the models' folders in a folder of its own name
(`registry.db`, `registry/`). Any MLflow server serves as well, by its http(s) address. MLflow is imported on first use.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from bizllm.errors import Fault, RunError, UserError, nearest
from bizllm.models.cache import default_cache, filled_once
from bizllm.models.content import content_hash
from bizllm.models.registry_uri import SQLITE, default_uri, shown
from bizllm.models.versions import ModelVersion, Moved, RegisteredModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel

__all__ = ["CHAMPION", "ModelVersion", "Moved", "RegisteredModel", "Registry", "default_uri", "load_mlflow"]

CHAMPION = "champion"
ANSWER_WITHIN_S = 10.0  # a server that takes longer for its first answer counts as down
MOST_HISTORY = 100  # earlier holders of an alias that are remembered
MOST_CARD = 5_000  # characters of a description that MLflow's databases hold; the whole card lies beside the weights

_BATCH = 100  # of metrics, parameters, tags in one request

# For this process, before MLflow is imported: it sends nothing about its use, prints nothing, and needs no git.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
# A server that is restarted meanwhile is waited for, but not for the ten minutes of MLflow's own defaults.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def load_mlflow() -> ModuleType:
    """MLflow, silent. Raises UserError where it is not installed."""
    os.environ.update(_QUIET)
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ModuleNotFoundError:
        needs = "the model registry needs MLflow, which is not installed"
        raise UserError(Fault("registry", None, needs, "pip install 'bizllm[train]'")) from None
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    return mlflow


class Registry:
    """The models of one registry. uri: as `default_uri` gives it. Every method raises UserError for unknown names and
    a registry that is not there or does not answer, RunError where it answers with a failure."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._open: MlflowClient | None = None

    # -- reading --------------------------------------------------------------------------------------------------

    def models(self) -> list[RegisteredModel]:
        """Every model that has a version, by name."""
        with self._asking() as client:
            found = [(model, self._numbers(client, model.name)) for model in _all(client.search_registered_models)]
            return [
                RegisteredModel(
                    model.name,
                    (aliases := _aliases(model)),
                    numbers[-1],
                    self._version(client, model, aliases.get(CHAMPION, numbers[-1])),
                )
                for model, numbers in sorted(found, key=lambda pair: str(pair[0].name))
                if numbers
            ]

    def versions(self, name: str, place: str = "MODEL") -> list[ModelVersion]:
        """Every version of a model, the oldest first."""
        with self._asking() as client:
            model = self._model(client, name, place)
            return [self._version(client, model, number) for number in self._numbers(client, name)]

    def get(self, name: str, which: str = CHAMPION, place: str = "MODEL") -> ModelVersion:
        """The version that an alias points to, or that has the number `which`."""
        with self._asking() as client:
            model = self._model(client, name, place)
            aliases = _aliases(model)
            if not which.isdecimal():
                if which not in aliases:
                    raise _unknown_alias(name, which, aliases, place)
                return self._version(client, model, aliases[which])
            numbers = self._numbers(client, name)
            if which not in numbers:
                known = f"it has {', '.join(numbers[-10:])}" if numbers else "it has none"
                raise UserError(Fault(place, which, f"no such version of {name}; {known}"))
            return self._version(client, model, which)

    def history(self, name: str, alias: str = CHAMPION, place: str = "MODEL") -> list[str]:
        """The versions that held the alias before the present one, the oldest first."""
        with self._asking() as client:
            model = self._model(client, name, place)
            return self._history(client, model, alias)

    def fetch(self, name: str, which: str = CHAMPION, cache: Path | None = None, place: str = "MODEL") -> Path:
        """The folder of a version on this machine."""
        version = self.get(name, which, place)
        return self.download(version.source, version.content_hash, cache, place)

    def download(
        self, source: str, expected: str | None = None, cache: Path | None = None, place: str = "MODEL"
    ) -> Path:
        """The folder at a version's `source`: where it lies on this machine, else downloaded to the cache, once.

        expected: its content hash, held against what was downloaded. Safe where several processes ask at once.
        """
        local = _local(source)
        if local is not None:
            if not local.is_dir():
                gone = "the registered model's folder is not on this machine"
                hint = "keep the registry on an MLflow server, or on a disk that every node mounts"
                raise UserError(Fault(place, str(local), gone, hint))
            return local
        target = (cache or default_cache()) / hashlib.sha256(f"{self.uri}\0{source}".encode()).hexdigest()[:32]

        def fill(part: Path) -> Path:
            with self._asking():
                from mlflow.artifacts import download_artifacts

                got = Path(download_artifacts(artifact_uri=source, dst_path=str(part), tracking_uri=self.uri))
            if expected and content_hash(got) != expected:
                raise RunError(f"{place}: what was downloaded is not what was registered; try again")
            return got

        if not filled_once(target, fill):
            raise RunError(f"{place}: the model can't be kept in {target.parent}; set BIZLLM_CACHE")
        return target

    # -- writing --------------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        folder: Path,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, object],
        tags: Mapping[str, object],
        intervals: Mapping[str, tuple[float, float]] | None = None,
        card: str | None = None,
        run_name: str | None = None,
    ) -> ModelVersion:
        """Copy a model's folder into the registry and make it the newest version of `name`.

        metrics: `SPLIT.METRIC` → value; intervals: the same names → (low, high). The registry is made where it is a
        SQLite file that is not there yet. No alias moves.
        """
        said = {key: str(value) for key, value in tags.items()} | {"content_hash": content_hash(folder)}
        said |= {f"interval.{metric}": f"{low!r},{high!r}" for metric, (low, high) in (intervals or {}).items()}
        experiment = self.experiment(name)
        with self._asking() as client:
            run = client.create_run(experiment, run_name=run_name, tags=said).info
            try:
                _log(client, run.run_id, metrics, params)
                client.log_artifacts(run.run_id, str(folder), "model")
                with self._unless("RESOURCE_ALREADY_EXISTS"):
                    client.create_registered_model(name)
                made = client.create_model_version(
                    name, f"{run.artifact_uri}/model", run.run_id, said, description=(card or "")[:MOST_CARD]
                )
            except BaseException:
                with suppress(Exception):
                    client.set_terminated(run.run_id, "FAILED")
                raise
            client.set_terminated(run.run_id)
            return self._version(client, client.get_registered_model(name), str(made.version))

    def tag(self, name: str, version: str, tags: Mapping[str, object]) -> None:
        """Say more of a version: tags beside those that it has."""
        with self._asking() as client:
            for key, value in tags.items():
                client.set_model_version_tag(name, version, key, str(value))

    def delete(self, name: str, version: str) -> None:
        """Delete a version; its number is not given again."""
        with self._asking() as client:
            client.delete_model_version(name, version)

    def experiment(self, name: str) -> str:
        """The id of MLflow's experiment for a model, made where it is not there: its runs' files lie in the registry's
        own folder, not in whatever the working directory is."""
        with self._asking(create=True) as client:
            found = client.get_experiment_by_name(name)
            if found is None:
                location = str(self._file.with_suffix("") / name) if self._file else None
                with self._unless("RESOURCE_ALREADY_EXISTS"):
                    client.create_experiment(name, location)
                found = client.get_experiment_by_name(name)
                assert found is not None, "an experiment that exists is found"
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

    def set_alias(self, name: str, alias: str, version: str) -> Moved:
        """Point the alias to a version (or to another alias's); the one before is remembered for `rollback`."""
        if not re.fullmatch(r"[A-Za-z][\w-]*", alias, re.ASCII) or re.fullmatch(r"v\d+|latest", alias, re.I):
            expected = "expected an alias of letters, digits, _ and -, not `latest` and no version number"
            raise UserError(Fault("--alias", alias, expected))
        with self._asking() as client:
            model = self._model(client, name, "MODEL")
            version = self.get(name, version, "VERSION").version
            replaced = _aliases(model).get(alias)
            if replaced is not None and replaced != version:
                self._remember(client, name, alias, [*self._history(client, model, alias), replaced])
            client.set_registered_model_alias(name, alias, version)
        return Moved(name, alias, version, replaced)

    def rollback(self, name: str, alias: str = CHAMPION, place: str = "MODEL") -> Moved:
        """Point the alias to the version that held it before; again: to the one before that."""
        with self._asking() as client:
            model = self._model(client, name, place)
            replaced = _aliases(model).get(alias)
            if replaced is None:
                raise _unknown_alias(name, alias, _aliases(model), "--alias")
            earlier = self._history(client, model, alias)
            if not earlier:
                only = f"version {replaced} is the first that held {alias}; there is none to go back to"
                raise UserError(Fault(place, name, only, f"`bizllm models promote {name} VERSION` takes any other"))
            client.set_registered_model_alias(name, alias, earlier[-1])
            self._remember(client, name, alias, earlier[:-1])
        return Moved(name, alias, earlier[-1], replaced)

    # -- MLflow ---------------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return Path(self.uri.removeprefix(SQLITE)) if self.uri.startswith(SQLITE) else None

    @contextmanager
    def _asking(self, create: bool = False) -> Iterator[MlflowClient]:
        """The client; what it can't do becomes a RunError. create: make a SQLite file that is not there."""
        if self._open is None:
            self._open = self._connect(create)
        from mlflow.exceptions import MlflowException

        try:
            yield self._open
        except MlflowException as error:
            first = str(error.message).split("\n")[0][:200]
            raise RunError(f"registry {shown(self.uri)}: {error.error_code}: {first}") from error
        except OSError as error:
            raise RunError(f"registry {shown(self.uri)}: {error.strerror or type(error).__name__}") from error

    def _connect(self, create: bool) -> MlflowClient:
        file, place = self._file, "registry"
        if file is None:
            _await_answer(self.uri)
        elif file.is_file():
            with file.open("rb") as stream:
                if stream.read(15) not in (b"SQLite format 3", b""):
                    raise UserError(Fault(place, str(file), "is no SQLite file, so no registry"))
        elif not create:
            hint = "`bizllm finetune` makes one, or name another: --registry, registry:, MLFLOW_TRACKING_URI"
            raise UserError(Fault(place, str(file), "there is no registry yet", hint))
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
        load_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def _unless(self, code: str) -> Iterator[None]:
        """Leaves out MLflow's errors of that code: another process was first."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code != code:
                raise

    def _model(self, client: MlflowClient, name: str, place: str) -> MlflowModel:
        with self._unless("RESOURCE_DOES_NOT_EXIST"):
            return client.get_registered_model(name)
        known = sorted(str(model.name) for model in _all(client.search_registered_models))
        has = f"it has {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else "it has none"
        raise UserError(Fault(place, name, f"no such model in {shown(self.uri)}; {has}", nearest(name, known)))

    def _numbers(self, client: MlflowClient, name: str) -> list[str]:
        quoted = name.replace("'", "''")
        found = _all(lambda **page: client.search_model_versions(f"name = '{quoted}'", **page))
        return sorted((str(version.version) for version in found), key=int)

    def _version(self, client: MlflowClient, model: MlflowModel, number: str) -> ModelVersion:
        found: MlflowVersion = client.get_model_version(model.name, number)
        metrics: dict[str, float] = {}
        params: dict[str, str] = {}
        with self._unless("RESOURCE_DOES_NOT_EXIST"):  # a run that was deleted, or of another server
            if found.run_id:
                run = client.get_run(found.run_id).data
                metrics, params = dict(run.metrics), dict(run.params)
        return ModelVersion(
            str(found.name),
            str(found.version),
            tuple(sorted(alias for alias, version in _aliases(model).items() if version == number)),
            metrics,
            params,
            dict(found.tags),
            str(found.source),
            datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            str(found.description or ""),
        )

    def _history(self, client: MlflowClient, model: MlflowModel, alias: str) -> list[str]:
        """The holders that are left: without deleted versions, and without the present one at the end, which an
        interrupted promotion leaves there."""
        held = str(model.tags.get(_history_tag(alias), ""))
        existing = set(self._numbers(client, model.name))
        earlier = [number for number in held.split(",") if number in existing]
        while earlier and earlier[-1] == _aliases(model).get(alias):
            earlier.pop()
        return earlier

    def _remember(self, client: MlflowClient, name: str, alias: str, held: list[str]) -> None:
        client.set_registered_model_tag(name, _history_tag(alias), ",".join(held[-MOST_HISTORY:]))


def _unknown_alias(name: str, alias: str, aliases: Mapping[str, str], place: str) -> UserError:
    known = f"it has {', '.join(sorted(aliases))}" if aliases else "it has none"
    hint = nearest(alias, aliases) or f"`bizllm models promote {name} VERSION` gives it one"
    return UserError(Fault(place, alias, f"no such alias of {name}; {known}", hint))


def _history_tag(alias: str) -> str:
    return f"bizllm.alias.{alias}.history"


def _aliases(model: MlflowModel) -> dict[str, str]:
    return {str(alias): str(version) for alias, version in model.aliases.items()}


def _all(search: Any) -> Iterator[Any]:
    """Every result of a search that MLflow gives in pages."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _log(client: MlflowClient, run_id: str, metrics: Mapping[str, float], params: Mapping[str, object]) -> None:
    from mlflow.entities import Metric, Param

    now = int(datetime.now(UTC).timestamp() * 1000)
    numbers = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
    texts = [Param(key, str(value)) for key, value in params.items()]
    for start in range(0, max(len(numbers), len(texts)), _BATCH):
        stop = start + _BATCH
        client.log_batch(run_id, metrics=numbers[start:stop], params=texts[start:stop])


def _local(source: str) -> Path | None:
    """The path that `source` is on this machine; None where it is a URI of a server or a store."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(source)


def _await_answer(uri: str) -> None:
    """Ask the server for anything, for a bounded time: MLflow itself would ask again for minutes. Raises UserError."""
    import requests

    try:
        requests.head(uri, timeout=ANSWER_WITHIN_S, allow_redirects=False)
    except requests.exceptions.SSLError:
        return  # it answered; MLflow's own settings decide whether to trust it
    except requests.exceptions.RequestException as error:
        why = f"the MLflow server does not answer ({type(error).__name__})"
        raise UserError(Fault("registry", shown(uri), why, "is it up, and the address right?")) from None
