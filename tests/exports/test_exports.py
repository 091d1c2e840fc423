"""Published nights copied into real systems: PostgreSQL, DuckDB and Parquet files. tests/consumers has the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from bizllm import api
from bizllm.cli import app
from bizllm.errors import RunError, UserError
from bizllm.exports.base import TableName, system
from tests.published import D1, D2, JOB, MADE, Shop

Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=["duckdb", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, Ask]:
    """(--to, --target, ask): `ask` runs a statement through another client than ours."""
    if request.param == "duckdb":
        file = str(tmp_path / "marts.duckdb")

        def ask(sql: str, *given: Any) -> list[tuple[Any, ...]]:
            with duckdb.connect(file) as connection:
                return connection.execute("set timezone = 'UTC'").execute(sql, given or None).fetchall()

        return "duckdb", file, ask
    url = request.getfixturevalue("postgres")

    def ask_postgres(sql: str, *given: Any) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(sql, given or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    ask_postgres("drop schema if exists shop cascade")
    return "postgres", url, ask_postgres


def test_nights_are_replaced_and_others_left(published: Shop, database: tuple[str, str, Ask]) -> None:
    to, target, ask = database
    api.export(published.path, "summary", to=to, target=target, date="2026-06-29")
    ask("update shop.summary set summary = 'mine' where ticket_id = 't1'")
    assert api.export(published.path, "summary", to=to, target=target).nights[0].rows == 3, "the newest"
    keys = "select run_date, ticket_id, summary from shop.summary order by 1, 2"
    one, others = ask(keys)[0], ask(keys)[2:]
    assert one == (D1, "t1", "mine"), "another night is left as it is"
    assert others == [(D2, "t1", "Uno"), (D2, "t3", None), (D2, "t4", "")]
    done = api.export(published.path, "summary", to=to, target=target, every=True)
    assert [(night.run_date, night.rows) for night in done.nights] == [(D1, 2), (D2, 3)]
    nul = "\ufffd" if to == "postgres" else "\0"
    assert ask(keys) == [(D1, "t1", "One"), (D1, "t2", f"a 'b' {nul} 二\n☃"), *others], "the same again, once"


def test_types_arrive(published: Shop, database: tuple[str, str, Ask]) -> None:
    to, target, ask = database
    api.export(published.path, "summary", to=to, target=target, every=True)
    row = "select spans, input_tokens, coverage, unsupported, run_id, produced_at from shop.summary"
    ((spans, tokens, coverage, unsupported, run, made),) = ask(f"{row} where summary like 'a%'")
    assert (spans, tokens, coverage, run, made) == ([{"document": 0, "start": 0, "end": 3}], 7, 0.5, "r1", MADE)
    assert unsupported == ["x\ufffd" if to == "postgres" else "x\0", None]
    lists = ask("select unsupported from shop.summary where run_date = '2026-06-30' order by ticket_id")
    assert lists == [(None,), (None,), ([],)]
    api.export(published.path, "demand", to=to, target=target)
    assert repr(ask("select day, mean, q10 from shop.demand")) == f"[({D2!r}, nan, None)]"
    api.export(published.path, "runs", to=to, target=target)
    assert ask("select run_date, state, rows_out, started_at from shop.runs") == [(D2, "done", 3, MADE)]
    api.export(published.path, "summary__rejects", to=to, target=target, date="2026-06-29")
    rejects = ask("select ticket_id, run_id from shop.summary__rejects")
    assert rejects == [("t9", "r1")], "those of the run that made the table's night"


def test_every_type_and_a_wider_one_later(database: tuple[str, str, Ask]) -> None:
    to, target, ask = database
    columns = {
        "i": pa.array([2**31 - 1, None], pa.int32()),
        "f": pa.array([1.5, float("inf")], pa.float32()),
        "b": pa.array([True, None]),
        "y": pa.array([b"\0\xff", None]),
        "d": pa.array([Decimal("1.25"), None], pa.decimal128(5, 2)),
        "t": pa.array([MADE.time(), None], pa.time64("us")),
        "n": pa.array([MADE.replace(tzinfo=None), None], pa.timestamp("us")),
        "stamps": pa.array([[MADE], None], pa.list_(pa.timestamp("us", "UTC"))),
        "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
        "deep": pa.array([[[1.0], None], None], pa.list_(pa.list_(pa.float64()))),
        "s": pa.array([{"x": float("nan"), "y": "\0"}, None], pa.struct({"x": pa.float64(), "y": pa.string()})),
        'odd "name;': pa.array(["v", None]),
        "run_date": pa.array([D1, D1]),
    }
    with system(to).connect(target, TableName("shop", "every"), []) as receiver:
        assert receiver.replace(D1, pa.table(columns).to_reader()) == 2
        wider = {**columns, "i": pa.array([2**40, 1]), "new": pa.array([[1], [2]]), "run_date": pa.array([D2, D2])}
        del wider["f"]
        assert receiver.replace(D2, pa.table(wider).to_reader()) == 2
        assert receiver.replace(D2, pa.table(wider).slice(0, 0).to_reader()) == 0, "an empty night"
        assert receiver.replace(D2, pa.table(wider).to_reader()) == 2
    first = ask("select * from shop.every where run_date = '2026-06-29' order by i")
    assert [row[0] for row in first] == [2**31 - 1, None]
    text = to == "postgres"  # JSON there, which has neither NaN nor NUL
    row = [bytes(value) if isinstance(value, memoryview) else value for value in first[0]]
    stamps = [MADE.isoformat()] if text else [MADE]
    struct = {"x": None, "y": "\ufffd"} if text else {"y": "\0"}
    assert row[1:7] == [1.5, True, b"\0\xff", Decimal("1.25"), MADE.time(), MADE.replace(tzinfo=None)]
    assert row[7:10] == [stamps, {"k": 1}, [[1.0], None]]
    assert struct.items() <= row[10].items() and row[11:] == ["v", D1, None]
    assert [set(row[2:]) for row in first[1:]] == [{None, D1}] and first[1][1] == float("inf")
    assert ask("select i, f, \"new\" from shop.every where run_date = '2026-06-30' order by i desc") == [
        (2**40, None, [1]),
        (1, None, [2]),
    ]


def test_a_night_that_fails_changes_nothing(published: Shop, database: tuple[str, str, Ask]) -> None:
    to, target, ask = database
    api.export(published.path, "summary", to=to, target=target, every=True)
    before = ask("select * from shop.summary order by run_date, ticket_id")
    good = pa.record_batch({"ticket_id": ["t7"], "run_date": pa.array([D1]), "extra": [1]})

    def broken() -> Any:
        yield good
        raise RunError("the source failed")

    rows = pa.RecordBatchReader.from_batches(good.schema, broken())
    with system(to).connect(target, TableName("shop", "summary"), []) as receiver:
        with pytest.raises(RunError):
            receiver.replace(D1, rows)
        wrong = pa.record_batch({"ticket_id": ["Jane"], "run_date": pa.array([D1]), "coverage": ["Jane"]})
        with pytest.raises(RunError) as told:
            receiver.replace(D1, pa.RecordBatchReader.from_batches(wrong.schema, [wrong]))
        assert "Jane" not in str(told.value) and "shop.summary" in str(told.value)
        elsewhere = pa.record_batch({"ticket_id": ["t7"], "run_date": pa.array([D2])})
        with pytest.raises(RunError, match=r"0 rows of 2026-06-29 arrived, and 1 were sent|refused"):
            receiver.replace(D1, pa.RecordBatchReader.from_batches(elsewhere.schema, [elsewhere]))
    assert ask("select * from shop.summary order by run_date, ticket_id") == before


def test_sensitive_texts_stay_here(published: Shop, database: tuple[str, str, Ask]) -> None:
    to, target, ask = database
    row = "select ticket_id, summary, spans, unsupported, run_id from shop.secret"
    done = api.export(published.path, "secret", to=to, target=target)
    assert done.hidden == ["ticket_id", "summary", "unsupported"]
    spans = [{"document": 0, "start": 0, "end": 3}]
    assert ask(row) == [("•••", "•••", spans, None, "r2")]
    api.export(published.path, "secret", to=to, target=target, reveal=True)
    assert ask(row) == [("t1", "Jane Doe", spans, ["Jane"], "r2")]


def test_postgres_copies_of_one_night_at_once(published: Shop, postgres: str) -> None:
    """Without its lock each would delete the old rows and miss the other's new ones."""
    faults: list[BaseException] = []
    api.export(published.path, "summary", to="postgres", target=postgres, table="race.summary")

    def copy() -> None:
        try:
            for _ in range(5):
                api.export(published.path, "summary", to="postgres", target=postgres, table="race.summary")
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection = psycopg2.connect(postgres)
    with connection, connection.cursor() as cursor:
        cursor.execute("alter table race.summary drop constraint if exists summary_pkey")
        cursor.execute("select count(*), count(distinct ticket_id) from race.summary")
        assert (cursor.fetchone(), faults) == ((3, 3), [])
    connection.close()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--to", "postgress"], "--to: 'postgress': expected one of bigquery, clickhouse, duckdb, parquet, postgres"),
        (["--to", "postgres"], "--target: expected a URL such as postgresql://loader@db.example.com"),
        (
            ["--to", "postgres", "--target", "mysql://h/db"],
            "--target: 'mysql://h/db': expected a URL such as postgresql://",
        ),
        (["--to", "postgres", "--target", "postgresql://u:hunter2@h/d"], "'postgresql://u:…@h/d': holds a password"),
        (
            ["--to", "postgres", "--target", "postgresql://u:${NONE_SUCH}@h/d"],
            "environment variable NONE_SUCH is not set",
        ),
        (["--to", "postgres", "--target", "postgresql://u@127.0.0.1:1/d"], "port 1 failed: Connection refused"),
        (["--to", "duckdb", "--target", "."], "--target: '.': expected a file such as marts.duckdb"),
        (["--to", "duckdb", "--target", "x.duckdb", "--table", "x"], "--table: 'x': expected SCHEMA.TABLE"),
        (["--to", "duckdb", "--target", "x.duckdb", "--date", "2026-06-01"], "the newest is 2026-06-30"),
        (
            ["--to", "duckdb", "--target", "x.duckdb", "--date", "2026-06-30", "--all"],
            "expected either --all or --date",
        ),
        (["--to", "snowflake", "--target", "snowflake://acc/DB"], "expected snowflake://USER@ACCOUNT/DATABASE"),
        (["--to", "bigquery", "--target", "bigquery://p/d"], "expected bigquery://PROJECT"),
        (["--to", "clickhouse", "--target", "http://h"], "expected clickhouse://USER@HOST"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    published: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", published.path, "summary", *args])
    assert done.exit_code == 2, done.output
    assert said in done.output and done.output.count("\n") == 1 and "hunter2" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_secret_from_the_environment_is_never_shown(published: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADER_PASSWORD", "hunter2")
    target = "postgresql://loader:${LOADER_PASSWORD}@127.0.0.1:1/d"
    done = CliRunner().invoke(
        app, ["export", published.path, "summary", "--to", "postgres", "--target", target, "--json"]
    )
    assert done.exit_code == 2 and "hunter2" not in done.output and "loader:…@127.0.0.1" in done.output


def test_what_the_terminal_and_json_say(published: Shop, tmp_path: Path) -> None:
    args = ["export", published.path, "secret", "--to", "duckdb", "--target", str(tmp_path / "m.duckdb")]
    said = CliRunner().invoke(app, args).stdout.splitlines()
    assert said[0].split()[:3] == ["2026-06-30", "1", "rows"]
    assert said[1].startswith("shop.secret: 1 night, 1 rows → duckdb shop.secret at ")
    assert (
        said[2]
        == "hidden: ticket_id, summary, unsupported, since the step reads a sensitive source; --reveal copies them"
    )
    told = json.loads(CliRunner().invoke(app, [*args, "--reveal", "--json"]).stdout)
    assert told["hidden"] == [] and told["into"] == "shop.secret"
    assert [(night["run_date"], night["rows"]) for night in told["nights"]] == [("2026-06-30", 1)]


def test_a_step_that_is_not_there(published: Shop) -> None:
    with pytest.raises(UserError, match=r"expected one of demand, runs, secret.*did you mean 'summary'"):
        api.export(published.path, "sumary", to="duckdb", target="x.duckdb")
    assert published.warehouse.history("shop", "summary")[0].run_date == date(2026, 6, 30)


def test_a_step_that_the_job_has_no_more(published: Shop, tmp_path: Path) -> None:
    """Its table is there; whether it read the sensitive source nobody knows, so its texts are hidden."""
    job = tmp_path / "shop.yaml"
    kept = [line for line in JOB.splitlines() if not line.startswith("  summary:")]
    job.write_text("\n".join(kept).replace("path: warehouse", f"path: {Path(published.path).parent}/warehouse"))
    file = str(tmp_path / "m.duckdb")
    assert "summary" in api.export(str(job), "summary", to="duckdb", target=file).hidden
    with duckdb.connect(file) as connection:
        assert connection.sql("select distinct summary from shop.summary").fetchall()
        assert connection.sql("select count(*) from shop.summary where summary not in ('•••')").fetchall() == [(0,)]
