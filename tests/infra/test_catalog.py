"""infra/catalog on a PostgreSQL of its own: roles, TLS, writers at once, restarts, backups, and nights through it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

from bizllm import api
from bizllm.errors import RunError, UserError
from bizllm.jobs.job import load_job
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Warehouse
from tests.postgres import FOLDER, PASSWORDS, Server, catalog

NIGHT, BEFORE = "2026-03-10", "2026-03-09"
Job = Callable[..., str]

# Publishes nights of one row each: `… SETTINGS DAY…`; the first waits for a line, so that several begin at once.
PUBLISH = """
import sys
from datetime import date
import pyarrow as pa
import pyarrow.parquet as pq
from bizllm.tables import storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Warehouse, describe
warehouse = Warehouse(WarehouseSettings.model_validate_json(sys.argv[1]))
for day in sys.argv[2:]:
    when = date(2024, 5, int(day))
    rows = pa.table({"value": [int(day)], "run_date": [when]})
    url, footer = storage.join(warehouse.table_location("shop", "sales"), day + ".parquet"), []
    with storage.open_output(url) as stream:
        pq.write_table(rows, stream, metadata_collector=footer)
        file = describe(url, footer[0], stream.tell())
    if day == sys.argv[2]:
        warehouse.tables("shop")  # as a run does before its work
        print("ready", flush=True)
        sys.stdin.readline()
    warehouse.publish("shop", "sales", rows.schema, when, [file], {"run_id": day}, lambda: None)
    print(day, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with catalog() as running:
        yield running


@pytest.fixture
def pg(server: Server) -> Server:
    """The module's server, its catalog empty."""
    server.sql("truncate iceberg_tables, iceberg_namespace_properties", "bizllm_catalog")
    return server


def job_uri(server: Server) -> str:
    return server.uri("bizllm_job", quote(PASSWORDS["BIZLLM_JOB_PASSWORD"], safe=""))


def settings(server: Server, path: Path) -> WarehouseSettings:
    return WarehouseSettings(path=str(path), catalog="sql", uri=job_uri(server))


@pytest.fixture
def path(pg: Server, job: Job, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shop's job, its catalog in PostgreSQL, the password in a variable."""
    monkeypatch.setenv("DB_PASSWORD", quote(PASSWORDS["BIZLLM_JOB_PASSWORD"], safe=""))
    uri = pg.uri("bizllm_job", "${DB_PASSWORD}")
    return job(
        steps__segments=None,
        sources__orders=None,
        warehouse={"path": "wh", "catalog": "sql", "uri": uri},
        runtime={"num_cpus": 2, "object_store_mb": 200},
    )


# -- who may do what ----------------------------------------------------------------------------------------------


def as_(server: Server, user: str, password: str, statement: str, database: str = "bizllm_catalog") -> str:
    """`done`, or PostgreSQL's code of the refusal."""
    address = server.uri(user, quote(password, safe=""), database).replace("+psycopg2", "")
    try:
        connection = psycopg2.connect(address)
    except psycopg2.OperationalError as refused:
        return str(refused).strip().rpartition("FATAL:")[2].strip()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.Error as refused:
        return str(refused.pgcode)
    finally:
        connection.close()
    return "done"


def test_each_role_has_its_rights_and_no_more(pg: Server) -> None:
    row = "insert into iceberg_tables values ('bizllm', 'shop', 'sales', 's3://a', null, 'TABLE')"
    statements = {
        "read": "select * from iceberg_tables",
        "write": row + " on conflict do nothing",
        "delete": "delete from iceberg_namespace_properties",
        "lift the ban": "set transaction read write; " + row,
        "create": "create table more (x int)",
        "drop": "drop table iceberg_tables",
        "alter": "alter table iceberg_tables add x int",
        "become owner": "set role bizllm_owner",
        "make a role": "create role friend",
    }
    may = {
        user: {what for what, statement in statements.items() if as_(pg, user, password, statement) == "done"}
        for user, password in (
            ("bizllm_job", PASSWORDS["BIZLLM_JOB_PASSWORD"]),
            ("bizllm_reader", PASSWORDS["BIZLLM_READER_PASSWORD"]),
        )
    }
    assert may == {"bizllm_job": {"read", "write", "delete"}, "bizllm_reader": {"read"}}
    refused = "42501"  # insufficient_privilege
    assert as_(pg, "bizllm_reader", PASSWORDS["BIZLLM_READER_PASSWORD"], statements["lift the ban"]) == refused


def test_who_comes_in(pg: Server) -> None:
    job, models = PASSWORDS["BIZLLM_JOB_PASSWORD"], PASSWORDS["MLFLOW_PASSWORD"]
    assert as_(pg, "mlflow", models, "create table t (x int); drop table t", "mlflow") == "done"
    for user, password, database in (("bizllm_job", job, "mlflow"), ("mlflow", models, "bizllm_catalog")):
        assert "pg_hba.conf rejects connection" in as_(pg, user, password, "select 1", database)
    assert "password authentication failed" in as_(pg, "bizllm_job", "guess", "select 1")
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba.conf rejects connection"):
        psycopg2.connect(job_uri(pg).replace("+psycopg2", "").replace("verify-full", "disable"))
    rules = pg.sql("select count(*), count(error) from pg_hba_file_rules")
    assert rules == "6|0", "every line of pg_hba.conf is understood"
    assert pg.sql("select count(*) from pg_authid where rolpassword not like 'SCRAM-SHA-256$%'") == "0"


def test_the_tables_are_pyicebergs_own(pg: Server) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    pg.sql("create database plain")
    try:
        socket = f"postgresql+psycopg2://postgres@/plain?host={pg.folder}&port={pg.port}"
        SqlCatalog("bizllm", uri=socket).engine.dispose()
        columns = (
            "select table_name, ordinal_position, column_name, data_type, character_maximum_length, is_nullable "
            "from information_schema.columns where table_schema = 'public' order by 1, 2"
        )
        keys = (
            "select conrelid::regclass, pg_get_constraintdef(oid) from pg_constraint where contype = 'p' order by 1, 2"
        )
        for question in (columns, keys):
            assert pg.sql(question, "bizllm_catalog") == pg.sql(question, "plain") != ""
    finally:
        pg.sql("drop database plain")


def test_a_catalog_without_its_tables_or_right_password_is_told_of(pg: Server, tmp_path: Path) -> None:
    wrong = job_uri(pg).replace(quote(PASSWORDS["BIZLLM_JOB_PASSWORD"], safe=""), "guess")
    with pytest.raises(UserError, match=r"warehouse.uri.*password authentication failed") as told:
        _ = Warehouse(WarehouseSettings(path=str(tmp_path), catalog="sql", uri=wrong)).catalog
    assert "guess" not in str(told.value)
    pg.sql("alter table iceberg_tables rename to elsewhere", "bizllm_catalog")
    try:
        with pytest.raises(UserError, match=r"warehouse.uri.*permission denied for schema public"):
            _ = Warehouse(settings(pg, tmp_path)).catalog
    finally:
        pg.sql("alter table elsewhere rename to iceberg_tables", "bizllm_catalog")


# -- writers, restarts --------------------------------------------------------------------------------------------


class Writer:
    """A process that publishes these days of May once it is let."""

    def __init__(self, settings: WarehouseSettings, *days: int) -> None:
        command = [sys.executable, "-c", PUBLISH, settings.model_dump_json(), *map(str, days)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def ready(self) -> None:
        assert self.stdout.readline() == "ready\n"

    def go(self) -> None:
        self.stdin.write("\n")
        self.stdin.flush()

    def until(self, day: int) -> None:
        while int(self.stdout.readline()) != day:
            pass


def test_writers_at_once_lose_no_night_though_one_is_killed(pg: Server, tmp_path: Path) -> None:
    where = settings(pg, tmp_path / "wh")
    writers = [Writer(where, *range(1, 6)), Writer(where, *range(11, 16)), Writer(where, *range(21, 26))]
    for writer in writers:
        writer.ready()
    for writer in writers:
        writer.go()
    writers[2].until(22)
    writers[2].process.send_signal(signal.SIGKILL)
    for writer in writers[:2]:
        assert writer.process.wait(timeout=100) == 0
    writers[2].process.wait(timeout=10)
    warehouse = Warehouse(where)
    rows = warehouse.read("shop", "sales", ["value"])
    assert rows is not None
    values = sorted(rows["value"].to_pylist())
    assert values[:12] == [*range(1, 6), *range(11, 16), 21, 22], "no night that was told as published is lost"
    again = Writer(where, 28)
    again.ready()
    again.go()
    assert again.process.wait(timeout=60) == 0
    assert warehouse.newest("shop", "sales", date(2024, 5, 28)) is not None


def test_a_server_that_was_restarted_meanwhile_is_asked_again(pg: Server, tmp_path: Path) -> None:
    """A stage may take hours; a connection that was closed in between must not fail what comes after."""
    warehouse = Warehouse(settings(pg, tmp_path))
    assert warehouse.tables("shop") == []
    pg.stop()
    with pytest.raises(RunError, match=r"can't list the tables of shop: OperationalError.*Connection refused"):
        warehouse.tables("shop")
    pg.start()
    assert warehouse.tables("shop") == []
    pg.stop()
    pg.start()
    assert warehouse.tables("shop") == []


def test_a_commit_waits_for_a_server_that_is_restarted(pg: Server, tmp_path: Path) -> None:
    writer = Writer(settings(pg, tmp_path), 3)
    writer.ready()
    pg.stop()
    writer.go()
    with pytest.raises(subprocess.TimeoutExpired):
        writer.process.wait(timeout=2)
    pg.start()
    assert writer.process.wait(timeout=60) == 0
    assert Warehouse(settings(pg, tmp_path)).newest("shop", "sales", date(2024, 5, 3)) is not None


# -- nights -------------------------------------------------------------------------------------------------------


def rows(path: str, day: str) -> list[dict[str, Any]]:
    """What readers see of a date, without what tells one run from another."""
    asked = f"select * exclude (run_id, produced_at) from summary where run_date = date '{day}' order by all"
    return api.show(path, sql=asked).to_pylist()


def states(path: str) -> dict[str, str]:
    return {one["table"]: one["what"] for one in api.recover(path)["tables"]}


def test_nights_a_backup_and_two_ways_back(path: str, pg: Server, local_ray: None, tmp_path: Path) -> None:
    assert api.run(path, date=BEFORE).state == "done"
    dumped = pg.run(FOLDER / "backup.sh", "bizllm_catalog", tmp_path)
    assert dumped.returncode == 0, dumped.stderr
    dump = Path(dumped.stdout.strip())
    assert dump.stat().st_mode & 0o77 == 0, "for its owner's eyes only"
    first = api.run(path, date=NIGHT)
    before, tonight = rows(path, BEFORE), rows(path, NIGHT)
    assert (first.state, len(before), len(tonight)) == ("done", 12, 12)

    def go_back() -> None:
        done = pg.run(FOLDER / "restore.sh", "bizllm_catalog", dump)
        assert done.returncode == 0, done.stderr
        assert rows(path, BEFORE) == before and rows(path, NIGHT) == [], "the catalog is as of the backup"

    # One way: the files that were published since are there, and the catalog is told of them.
    go_back()
    assert set(states(path).values()) == {"moved"}
    assert rows(path, NIGHT) == tonight and api.run(path, date=NIGHT).state == "unchanged"
    # The other: the night is run again. Its old files are orphans, which gc removes in time.
    go_back()
    again = api.run(path, date=NIGHT)
    assert again.state == "done" and again.run_id != first.run_id
    assert rows(path, NIGHT) == tonight and rows(path, BEFORE) == before
    # Roles have their rights in what was restored, and nothing but those.
    assert as_(pg, "bizllm_reader", PASSWORDS["BIZLLM_READER_PASSWORD"], "select * from iceberg_tables") == "done"
    assert as_(pg, "bizllm_job", PASSWORDS["BIZLLM_JOB_PASSWORD"], "create table more (x int)") == "42501"
    assert "rejects" in as_(pg, "mlflow", PASSWORDS["MLFLOW_PASSWORD"], "select 1")
    # A catalog that is lost altogether.
    pg.sql("truncate iceberg_tables, iceberg_namespace_properties", "bizllm_catalog")
    with pytest.raises(UserError, match=r"shop.summary lies there.*bizllm recover"):
        api.run(path, date=NIGHT)
    assert set(states(path).values()) == {"registered"}
    assert rows(path, NIGHT) == tonight and api.run(path, date=NIGHT).state == "unchanged"
    # The password is nowhere.
    secret = PASSWORDS["BIZLLM_JOB_PASSWORD"]
    for file in (tmp_path / "wh").rglob("*"):
        if file.is_file():
            held = file.read_bytes()
            assert secret.encode() not in held and quote(secret, safe="").encode() not in held, file


def test_from_sqlite_to_postgres(pg: Server, job: Job, local_ray: None, tmp_path: Path) -> None:
    path = job(steps__segments=None, sources__orders=None)
    api.run(path, date=NIGHT)
    tonight = rows(path, NIGHT)
    job(warehouse={"path": "wh", "catalog": "sql", "uri": job_uri(pg).replace(":job%2Fp%40ss@", ":${PGPASS}@")})
    os.environ["PGPASS"] = "job%2Fp%40ss"
    try:
        assert set(states(path).values()) == {"registered"}
        assert rows(path, NIGHT) == tonight and api.run(path, date=NIGHT).state == "unchanged"
        assert load_job(path).job.warehouse.catalog == "sql"
    finally:
        del os.environ["PGPASS"]


def test_a_dump_that_can_not_be_read_changes_nothing(pg: Server, tmp_path: Path) -> None:
    bad = tmp_path / "bad.dump"
    bad.write_bytes(b"PGDMP and no more")
    databases = "select string_agg(datname, ' ' order by datname) from pg_database"
    before = pg.sql(databases)
    done = pg.run(FOLDER / "restore.sh", "bizllm_catalog", bad)
    assert done.returncode != 0 and pg.sql(databases) == before
    refused = pg.run(FOLDER / "restore.sh", "bizllm_catalgo", bad)
    assert (refused.returncode, "there is no database bizllm_catalgo" in refused.stderr) == (2, True)
    failed = pg.run(FOLDER / "backup.sh", "bizllm_catalgo", tmp_path)
    assert failed.returncode != 0 and [file.name for file in tmp_path.iterdir()] == ["bad.dump"]


def test_the_unit_of_the_registry_is_what_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = (FOLDER / "mlflow.service").read_text().replace("/opt/bizllm/bin/mlflow", sys.executable)
    unit = tmp_path / "mlflow.service"
    for said, right in ((text, True), (text.replace("DynamicUser=yes", "DynamicUser=perhaps"), False)):
        unit.write_text(said)
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0 and done.stderr == "") == right, done.stderr
