"""Where the registry of models is, and where downloads from it are kept.

Nothing is opened here, so that a job file can be checked in no time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from bizllm.errors import Fault, UserError

SQLITE = "sqlite:///"
_EXPECTED = "expected an MLflow server's http(s) address, or a SQLite file: sqlite:///PATH or PATH"


def default_uri(
    explicit: str | None, environment: Mapping[str, str], base_folder: str, place: str = "--registry"
) -> str:
    """Where the registry is: `explicit`, else MLFLOW_TRACKING_URI, else `registry.db` in `base_folder`.

    The answer is an http(s) address or `sqlite:////absolute/path`. Relative paths are relative to the working
    directory. place: where `explicit` stood. Raises UserError.
    """
    for where, given in ((place, explicit), ("MLFLOW_TRACKING_URI", environment.get("MLFLOW_TRACKING_URI"))):
        if given:
            return checked_uri(given, where)
    folder = base_folder.removeprefix("file://")
    if "://" in folder:
        missing = "is not set, and the default, a SQLite file beside the warehouse, can't lie in object storage"
        raise UserError(Fault("registry", None, missing, "name an MLflow server: registry: http://…"))
    return SQLITE + os.path.abspath(os.path.join(folder, "registry.db"))


def checked_uri(given: str, place: str) -> str:
    """The same registry as an http(s) address or with an absolute path. Cheap: nothing is opened. Raises UserError."""
    scheme = urlsplit(given).scheme
    if scheme in ("http", "https"):
        if not urlsplit(given).hostname:
            raise UserError(Fault(place, given, _EXPECTED))
        return given.rstrip("/")
    if scheme == "file":
        raise UserError(Fault(place, given, "MLflow closed its store of plain files; expected a SQLite file or server"))
    if scheme.partition("+")[0] in ("postgresql", "postgres", "mysql", "mssql"):
        database = "is a database; expected the address of the MLflow server before it, http(s)://…"
        raise UserError(Fault(place, shown(given), database, "see docs/deploy/catalog.md"))
    path = given.removeprefix(SQLITE)
    if not path or re.match(r"[A-Za-z][\w+.-]+:", path, re.ASCII):
        raise UserError(Fault(place, given if scheme == "sqlite" else shown(given), _EXPECTED))
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        raise UserError(Fault(place, given, "is a folder; " + _EXPECTED, f"did you mean '{given}/registry.db'?"))
    return SQLITE + path


def shown(uri: str) -> str:
    """The URI without a password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)
