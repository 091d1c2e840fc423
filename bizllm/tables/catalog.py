"""Opening the Iceberg catalog that a job names, and what its refusals mean to the person who set it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bizllm.errors import Fault, RunError, UserError
from bizllm.tables import storage

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from bizllm.tables.settings import WarehouseSettings

# Tables are registered under this name in SQL catalogs; other readers of such a catalog must use it too.
CATALOG_NAME = "bizllm"
SQLITE_BUSY_S = 30.0  # how long one writer waits for another that holds the SQLite file
_CLIENT_PACKAGES = {"pyiceberg", "sqlalchemy", "sqlite3", "requests", "urllib3", "botocore", "boto3", "psycopg2"}


def io_properties(properties: dict[str, str]) -> dict[str, str]:
    """PyIceberg's file properties: files go through `storage`, unless the job's properties say more of a store."""
    return {"py-io-impl": "bizllm.tables.iceberg_io.StorageFileIO"} | properties


def sqlite_file(settings: WarehouseSettings) -> str:
    """Path of the SQLite catalog: `uri`, or catalog.db in the warehouse's folder."""
    if settings.uri:
        return settings.uri.removeprefix("sqlite:///")
    if not storage.is_local(settings.path):
        raise UserError(
            Fault(
                "warehouse.catalog",
                "sqlite",
                f"an SQLite catalog can't live in {settings.path}",
                "use `catalog: rest`, `glue` or `sql`, or give the `uri` of a file on local disk",
            )
        )
    return storage.join(storage.filesystem(settings.path)[1], "catalog.db")


def open_catalog(settings: WarehouseSettings) -> Catalog:
    """The catalog, answering. Raises UserError where the settings lead nowhere."""
    properties = io_properties(settings.properties)
    if settings.catalog == "sqlite":
        file = sqlite_file(settings)
        properties |= {"type": "sql", "uri": f"sqlite:///{file}?timeout={SQLITE_BUSY_S}"}
    elif settings.catalog in ("sql", "rest") and not settings.uri:
        raise UserError(Fault("warehouse.uri", None, f"expected the address of the {settings.catalog} catalog"))
    else:
        properties |= {"type": settings.catalog} | ({"uri": settings.uri} if settings.uri else {})
        if settings.catalog == "sql":
            # A database that was restarted, or a firewall, has closed what lay idle for the hours of a stage.
            properties = {"pool_pre_ping": "true"} | properties
    try:
        with asking(settings, "open the catalog"):
            if settings.catalog == "sqlite":
                os.makedirs(os.path.dirname(file) or ".", exist_ok=True)
            return _connect(properties)
    except RunError as fault:
        raise UserError(_fault_of_settings(settings, str(fault.__cause__ and reason(fault.__cause__)))) from fault


def _connect(properties: dict[str, str]) -> Catalog:
    from pyiceberg.catalog import load_catalog
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return load_catalog(CATALOG_NAME, **properties)
    except SQLAlchemyError as fault:
        if "already exists" not in str(fault):
            raise
        # Two first runs made the catalog's tables at once: the other one did.
        return load_catalog(CATALOG_NAME, **properties)


@contextmanager
def asking(settings: WarehouseSettings, action: str) -> Iterator[None]:
    """Turn what a catalog or a file system says into one RunError that names the warehouse and what was tried."""
    try:
        yield
    except (RunError, UserError):
        raise
    except Exception as fault:
        if type(fault).__module__.partition(".")[0] not in _CLIENT_PACKAGES and not isinstance(
            fault, OSError | ImportError | ValueError
        ):
            raise
        raise RunError(f"warehouse {settings.path}: can't {action}: {reason(fault)}") from fault


def reason(fault: BaseException) -> str:
    """One line without SQL, statement parameters or passwords."""
    said = str(getattr(fault, "orig", None) or fault).strip().partition("\n")[0][:300]
    return f"{type(fault).__name__}: {said}" if said else type(fault).__name__


def passing() -> tuple[type[Exception], ...]:
    """What a commit may end with that a later one may not: another's commit in between, a catalog that is away."""
    from pyiceberg import exceptions as iceberg
    from sqlalchemy.exc import IntegrityError, OperationalError

    return (
        iceberg.CommitFailedException,
        iceberg.TableAlreadyExistsError,
        iceberg.WaitingForLockException,
        iceberg.CommitStateUnknownException,
        iceberg.ServiceUnavailableError,
        OperationalError,
        IntegrityError,  # two first publishes made the job's namespace at once
    )


def _fault_of_settings(settings: WarehouseSettings, said: str) -> Fault:
    if settings.catalog == "sqlite":
        return Fault(
            "warehouse.path",
            settings.path,
            f"can't open catalog.db there ({said})",
            "give a folder that can be written",
        )
    if "No module" in said or "NotInstalled" in said or "import" in said.lower():
        extra = {"glue": "glue", "sql": "postgres"}.get(settings.catalog, "")
        return Fault("warehouse.catalog", settings.catalog, said, f"pip install 'bizllm[{extra}]'" if extra else "")
    return Fault(
        "warehouse.uri",
        _without_password(settings.uri) if settings.uri else settings.catalog,
        f"the catalog does not answer ({said})",
        "check that it is up, and its address and credentials in `uri`, `properties` or the environment",
    )


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return uri if "@" not in parts.netloc else parts._replace(netloc="…@" + parts.netloc.rpartition("@")[2]).geturl()
