"""Nights copied through the clients of ClickHouse, Snowflake and BigQuery, whose packages ours does not hold.

ClickHouse is real (chDB, the same engine in a process). Snowflake is the real connector's API on fakesnow, which
answers with DuckDB; BigQuery is Google's own client against a small server that keeps what is loaded, by the rules of
partitions. Neither is the real service.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import RunError, UserError
from bizllm.exports.base import TableName, system
from tests.published import D1, D2, MADE, Shop, ticket

pytestmark = pytest.mark.consumers

EVERY = pa.table(
    {
        "k": ["a", "b"],
        "i": pa.array([2**31 - 1, None], pa.int32()),
        "f": pa.array([1.5, None], pa.float32()),
        "b": pa.array([True, None]),
        "d": pa.array([Decimal("1.25"), None], pa.decimal128(5, 2)),
        "t": pa.array([MADE.time(), None], pa.time64("us")),
        "n": pa.array([MADE.replace(tzinfo=None), None], pa.timestamp("us")),
        "z": pa.array([MADE, None], pa.timestamp("us", "UTC")),
        "l": pa.array([["x"], []]),
        "m": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
        "s": pa.array([[{"x": 0.5, "y": "v"}], None], pa.list_(pa.struct({"x": pa.float64(), "y": pa.string()}))),
        "run_date": pa.array([D1, D1]),
    }
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("shop"))
    made.publish("summary", D1, "r1", [ticket("t1", "One"), ticket("t2", "二 'b'", unsupported=["x"])])
    made.publish("summary", D2, "r2", [ticket("t1", "Uno"), ticket("t3", None)])
    return made


def copy(shop: Shop, to: str, target: str, **more: Any) -> list[tuple[date, int]]:
    done = api.export(shop.path, "summary", to=to, target=target, **more)
    return [(night.run_date, night.rows) for night in done.nights]


def test_clickhouse(shop: Shop, tmp_path: Path) -> None:
    clickhouse_connect = pytest.importorskip("clickhouse_connect")
    target = f"chdb://{tmp_path}/ch"

    def ask(sql: str) -> list[Any]:
        client = clickhouse_connect.get_client(dsn=target)
        try:
            return list(client.query(sql).result_rows)
        finally:
            client.close()

    assert copy(shop, "clickhouse", target, date=str(D1)) == [(D1, 2)]
    assert copy(shop, "clickhouse", target, every=True) == [(D1, 2), (D2, 2)]
    rows = [(D1, "t1", "One", []), (D1, "t2", "二 'b'", ["x"]), (D2, "t1", "Uno", []), (D2, "t3", None, [])]
    every = "select run_date, ticket_id, summary, unsupported from shop.summary order by 1, 2"
    assert ask(every) == rows
    with system("clickhouse").connect(target, TableName("shop", "summary"), []) as receiver:
        assert receiver.replace(D2, shop.steps["summary"].schema.empty_table().to_reader()) == 0
        wrong = pa.table({"ticket_id": ["Jane"], "run_date": [D1], "coverage": ["Jane"]})
        with pytest.raises(RunError) as told:
            receiver.replace(D1, wrong.to_reader())
        assert "Jane" not in str(told.value) and "shop.summary" in str(told.value)
    assert ask(every) == rows[:2], "the emptied night is gone, the failed one stands"
    with system("clickhouse").connect(target, TableName("shop", "every"), ["k"]) as receiver:
        assert receiver.replace(D1, EVERY.to_reader()) == 2
        wider = EVERY.append_column("new", pa.array([1, 2])).set_column(11, "run_date", pa.array([D2, D2]))
        assert receiver.replace(D2, wider.to_reader()) == 2
    naive = MADE.replace(tzinfo=None)
    assert ask("select * from shop.every where run_date = '2026-06-29' order by k") == [
        ("a", 2**31 - 1, 1.5, True, Decimal("1.25"), "01:02:03.456789", naive, naive, ["x"], '{"k":1}',
         '[{"x":0.5,"y":"v"}]', D1, None),
        ("b", None, None, None, None, None, None, None, [], None, None, D1, None),
    ]  # fmt: skip
    assert ask("select k, new from shop.every where run_date = '2026-06-30' order by k") == [("a", 1), ("b", 2)]
    assert ask("select name from system.tables where database = 'shop' order by 1") == [("every",), ("summary",)]


def test_snowflake(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    fakesnow = pytest.importorskip("fakesnow")
    from snowflake import connector

    monkeypatch.setenv("SNOWFLAKE_PASSWORD", "hunter2")
    target = "snowflake://loader@acme/marts?warehouse=load_wh&role=loader"
    with fakesnow.patch(create_database_on_connect=True):
        session = connector.connect(user="reader", account="acme", database="MARTS")

        def ask(sql: str) -> list[Any]:
            return list(session.cursor().execute(sql).fetchall())

        assert copy(shop, "snowflake", target, date=str(D1)) == [(D1, 2)]
        assert copy(shop, "snowflake", target, every=True) == [(D1, 2), (D2, 2)]
        every = "select run_date, ticket_id, summary, unsupported from shop.summary order by 1, 2"
        rows = [(D1, "t1", "One", None), (D1, "t2", "二 'b'", '["x"]'), (D2, "t1", "Uno", None), (D2, "t3", None, None)]
        assert ask(every) == rows
        with system("snowflake").connect(target, TableName("shop", "summary"), []) as receiver:
            elsewhere = pa.table({"ticket_id": ["t7"], "run_date": [D2]})
            with pytest.raises(RunError, match="0 rows of 2026-06-29 arrived, and 1 were sent"):
                receiver.replace(D1, elsewhere.to_reader())
        assert ask(every) == rows, "rolled back"
        with system("snowflake").connect(target, TableName("shop", "every"), []) as receiver:
            assert receiver.replace(D1, EVERY.to_reader()) == 2
            wider = EVERY.append_column("new", pa.array([1, 2])).set_column(11, "run_date", pa.array([D2, D2]))
            assert receiver.replace(D2, wider.to_reader()) == 2
        naive = MADE.replace(tzinfo=None)
        first, second = ask("select * from shop.every where run_date = '2026-06-29' order by k")
        assert first == (
            "a", 2**31 - 1, 1.5, True, Decimal("1.25"), MADE.time(), naive, MADE, '["x"]', '{"k":1}',
            '[{"x":0.5,"y":"v"}]', D1, None,
        )  # fmt: skip
        assert second == ("b", *[None] * 7, "[]", None, None, D1, None)
        assert ask("select k, new from shop.every where run_date = '2026-06-30' order by k") == [("a", 1), ("b", 2)]


class BigQueryServer:
    """What Google's client asks of BigQuery to load a file into a partition; the rest is refused.

    tables: by `project.dataset.table`, the rows of each partition; a load may only add columns to what is there.
    """

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.columns: dict[str, dict[str, tuple[str, str]]] = {}
        self.datasets: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def answer(self, status: int, value: Any, **headers: str) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                for name, text in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                    **headers,
                }.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.split("?")[0].endswith("/datasets"):
                    name = value["datasetReference"]["datasetId"]
                    known = name in server.datasets
                    server.datasets += [] if known else [name]
                    self.answer(
                        409 if known else 200, {"error": {"code": 409, "message": "Already Exists"}} if known else value
                    )
                elif self.path.startswith("/upload/") and "uploadType=resumable" in self.path:
                    name = value["jobReference"]["jobId"]
                    server.jobs[name] = value
                    self.answer(200, {}, Location=f"http://{self.headers['Host']}/put/{name}")
                else:
                    self.answer(404, {})

            def do_PUT(self) -> None:
                job = server.jobs[self.path.rpartition("/")[2]]
                size = int(self.headers["Content-Length"])
                assert self.headers["Content-Range"] == f"bytes 0-{size - 1}/{size}", "one piece in these tests"
                self.answer(200, server.loaded(job, self.rfile.read(size)))

            def do_GET(self) -> None:
                if "/jobs/" in self.path:
                    self.answer(200, server.jobs[re.split(r"[/?]", self.path.partition("/jobs/")[2])[0]])
                else:
                    name = self.path.partition("/datasets/")[2].partition("?")[0]
                    reference = {"projectId": "acme", "datasetId": name}
                    self.answer(200 if name in server.datasets else 404, {"datasetReference": reference})

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def loaded(self, job: dict[str, Any], body: bytes) -> dict[str, Any]:
        load = job["configuration"]["load"]
        place = load["destinationTable"]
        name, _, partition = place["tableId"].partition("$")
        table = f"{place['projectId']}.{place['datasetId']}.{name}"
        given = {field["name"]: (field["type"], field["mode"]) for field in load["schema"]["fields"]}
        known = self.columns.setdefault(table, given)
        rows = pq.read_table(io.BytesIO(body)).to_pylist()
        right = (
            load["sourceFormat"] == "PARQUET"
            and load["writeDisposition"] == "WRITE_TRUNCATE"
            and load["timePartitioning"] == {"type": "DAY", "field": "run_date"}
            and load["parquetOptions"]["enableListInference"]
            and all(given.get(column, kind) == kind for column, kind in known.items())
            and (given.keys() <= known.keys() or load["schemaUpdateOptions"] == ["ALLOW_FIELD_ADDITION"])
            and all(f"{row['run_date']:%Y%m%d}" == partition for row in rows)
        )
        job["status"] = {"state": "DONE"}
        if right:
            known |= given
            self.tables.setdefault(table, {})[partition] = rows
            job["statistics"] = {"load": {"outputRows": str(len(rows))}}
        else:
            job["status"] |= {"errorResult": {"reason": "invalid", "message": f"of {rows[:1]}"}}
        return job

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def bigquery(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    pytest.importorskip("google.cloud.bigquery")
    server = BigQueryServer()
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
    yield server
    server.close()


def test_bigquery(shop: Shop, bigquery: BigQueryServer) -> None:
    assert copy(shop, "bigquery", "bigquery://acme", date=str(D1)) == [(D1, 2)]
    assert copy(shop, "bigquery", "bigquery://acme?location=EU", every=True) == [(D1, 2), (D2, 2)]
    assert bigquery.datasets == ["shop"]
    nights = bigquery.tables["acme.shop.summary"]
    told = {day: [(row["ticket_id"], row["summary"]) for row in rows] for day, rows in nights.items()}
    assert told == {"20260629": [("t1", "One"), ("t2", "二 'b'")], "20260630": [("t1", "Uno"), ("t3", None)]}
    with system("bigquery").connect("bigquery://acme", TableName("shop", "summary"), []) as receiver:
        assert receiver.replace(D2, shop.steps["summary"].schema.empty_table().to_reader()) == 0
        retyped = pa.table({"ticket_id": ["Jane"], "run_date": [D1], "coverage": ["Jane"]})
        with pytest.raises(RunError) as fault:
            receiver.replace(D1, retyped.to_reader())
        assert "Jane" not in str(fault.value) and "BadRequest" in str(fault.value)
    assert [len(rows) for rows in nights.values()] == [2, 0]
    with system("bigquery").connect("bigquery://acme", TableName("shop", "every"), []) as receiver:
        assert receiver.replace(D1, EVERY.to_reader()) == 2
    assert bigquery.columns["acme.shop.every"] == {
        "k": ("STRING", "NULLABLE"), "i": ("INTEGER", "NULLABLE"), "f": ("FLOAT", "NULLABLE"),
        "b": ("BOOLEAN", "NULLABLE"), "d": ("NUMERIC", "NULLABLE"), "t": ("TIME", "NULLABLE"),
        "n": ("DATETIME", "NULLABLE"), "z": ("TIMESTAMP", "NULLABLE"), "l": ("STRING", "REPEATED"),
        "m": ("STRING", "NULLABLE"), "s": ("RECORD", "REPEATED"), "run_date": ("DATE", "NULLABLE"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("to", "target", "said"),
    [
        ("bigquery", "bigquery://acme", "no credentials \\(DefaultCredentialsError\\)"),
        ("clickhouse", "clickhouse://loader@127.0.0.1:1", "can't connect"),
    ],
)
def test_a_service_that_does_not_let_us_in(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, to: str, target: str, said: str
) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(UserError, match=said):
        copy(shop, to, target)
