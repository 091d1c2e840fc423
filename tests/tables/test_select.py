"""Row-wise SQL: what it reads, what it gives, and everything that it refuses."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from bizllm.errors import RunError
from bizllm.tables.select import RowSql
from bizllm.tables.sql import quoted, sandbox

ROWS = pa.table(
    {
        "id": [1, 2, 3],
        "qty": [2, -1, None],
        "price": [1.5, 2.0, 4.0],
        "body": ["Hello", None, "客户"],
        "tags": [["a", "b"], [], None],
        "info": [{"city": "Oslo"}, {"city": "北京"}, None],
    }
)


def run(select: str | None, condition: str | None, columns: list[str]) -> list[dict[str, object]]:
    sql = RowSql(ROWS.schema, select, condition)
    assert sql.faults() == []
    rows = ROWS.select(sql.reads(columns) or ["id"])
    mask = sql.mask(rows)
    return sql.project(rows.filter(mask) if mask is not None else rows, columns).to_pylist()


def test_select_and_filter() -> None:
    answer = run("*, qty * price as amount", "qty > 0 or qty is null", ["id", "amount"])
    assert answer == [{"id": 1, "amount": 3.0}, {"id": 3, "amount": None}]


def test_a_null_condition_drops_the_row() -> None:
    assert run(None, "qty > 0", ["id"]) == [{"id": 1}]


def test_words_of_the_clock_are_texts_like_others() -> None:
    assert run("id, 'today' as said", "body <> 'now'", ["said"]) == [{"said": "today"}] * 2


@pytest.mark.parametrize(
    ("select", "columns", "reads"),
    [
        ("*, qty * price as amount", ["amount"], ["qty", "price"]),
        ("*, qty * price as amount", ["id", "body"], ["id", "body"]),
        ("qty * price as amount, amount * 2 as twice", ["twice"], ["qty", "price"]),
        ("ID as key, lower(rows.body) as text", ["key", "text"], ["id", "body"]),
        ("list_transform(tags, lambda t: upper(t)) as up", ["up"], ["tags"]),
        ("[t for t in tags if t <> 'a'] as rest", ["rest"], ["tags"]),
        ("info.city as city, (info).city as again", ["city", "again"], ["info"]),
        ("* exclude (tags)", ["body"], ["body"]),
        ("case when qty > 0 then body end as said", ["said"], ["qty", "body"]),
        ("id, 'a;b -- c' as note -- a comment", ["note"], []),
        (None, ["body"], ["body"]),
    ],
)
def test_only_the_columns_that_are_needed_are_read(select: str | None, columns: list[str], reads: list[str]) -> None:
    sql = RowSql(ROWS.schema, select)
    assert sql.faults() == []
    assert sql.reads(columns) == reads
    whole = sql.project(ROWS, columns)
    assert sql.project(ROWS.select(reads or ["id"]), columns).equals(whole)
    assert pickle.loads(pickle.dumps(sql)).project(ROWS, columns).equals(whole)


@pytest.mark.parametrize(
    "text",
    [
        "(select max(id) from rows)",
        "exists (select 1)",
        "id in (select id from rows)",
        "sum(qty)",
        "count(*)",
        "histogram(qty)",
        "list(id)",
        "first(id)",
        "row_number() over ()",
        "sum(qty) over (order by id)",
        "lag(id) over ()",
        "unnest(tags)",
        "id from rows",
        "id from read_csv('/etc/passwd')",
        "id from '/etc/passwd'",
        "id from ROWS_TABLE",
        "id; select 2",
        "id;",
        "1); attach 'x.db'; select (1",
        "id) from read_text('/etc/passwd') where (true",
        "read_csv('/etc/passwd')",
        "read_text('/etc/passwd')",
        "read_blob('x')",
        "glob('*')",
        "getenv('HOME')",
        "getvariable('x')",
        "current_setting('home_directory')",
        "which_secret('s3://x', 's3')",
        "query('select 1')",
        "json_execute_serialized_sql('{}')",
        "nextval('s')",
        "setseed(0.5)",
        "random()",
        "uuid()",
        "gen_random_uuid()",
        "now()",
        "current_date",
        "current_timestamp",
        "localtimestamp",
        "today()",
        "ago(interval 1 day)",
        "age(timestamp '2020-01-01')",
        "'now'::timestamp",
        "cast('today' as date)",
        "current_user",
        "version()",
        "pg_sleep(1)",
        "sleep_ms(1)",
        "error(body)",
        "write_log(body)",
        "txid_current()",
        "main.lower(body)",
        "?",
        "$1",
        "id limit 1",
        "id order by id",
        "distinct id",
        "id group by id",
        "id where true",
        "id union select 2",
        "id using sample 1",
        "id /*",
        "",
        "lowwer(body)",
        "bodi",
        "other.id",
        "body + qty",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    for sql in (RowSql(ROWS.schema, select=text), RowSql(ROWS.schema, filter=text)):
        (fault,) = sql.faults()
        assert fault.value == text
        assert "\n" not in fault.expected


@pytest.mark.parametrize(
    "statement",
    ["attach 'x.db'", "copy rows to 'x'", "pragma version", "install httpfs", "load httpfs", "set threads = 8",
     "create table t as select 1", "call pragma_version()", "from rows"],
)  # fmt: skip
def test_statements_are_refused(statement: str) -> None:
    for text in (statement, f"id; {statement}", f"1); {statement}; select (1"):
        for sql in (RowSql(ROWS.schema, select=text), RowSql(ROWS.schema, filter=text)):
            assert sql.faults(), text


def test_the_connection_itself_is_closed_to_files_and_settings() -> None:
    import duckdb

    ROWS_OF_PYTHON = ROWS  # noqa: F841
    with sandbox() as cursor:
        for statement in (
            "select * from read_csv('/etc/passwd')",
            "set threads = 8",
            "set enable_external_access = true",
            "attach '/tmp/x.db'",
            "load httpfs",
            "select * from ROWS_OF_PYTHON",
        ):
            with pytest.raises(duckdb.Error):
                cursor.execute(statement)


def test_what_one_cursor_registers_no_other_sees() -> None:
    import duckdb

    with sandbox() as one, sandbox() as other:
        one.register("mine", ROWS)
        assert one.execute("select count(*) from mine").fetchall() == [(3,)]
        with pytest.raises(duckdb.Error, match="mine"):
            other.execute("select count(*) from mine")


@pytest.mark.parametrize("deep", [200, 450, 900, 20_000])
def test_deep_sql_is_answered_not_crashed(deep: int) -> None:
    text = " + ".join(["id"] * deep)
    for sql in (RowSql(ROWS.schema, select=f"{text} as sum"), RowSql(ROWS.schema, filter=f"{text} > 0")):
        faults = sql.faults()
        if deep == 200:
            assert faults == []
        if deep >= 900:
            assert len(faults) == 1 and "\n" not in faults[0].expected


@pytest.mark.parametrize("name", ['a"b', "a b", "客户", '"', "select", "a'; drop table rows --"])
def test_a_quoted_name_is_that_column(name: str) -> None:
    rows = pa.table({name: [1, 2]})
    with sandbox() as cursor:
        cursor.register("named", rows)
        assert cursor.sql(f"select {quoted(name)} from named").to_arrow_table().equals(rows)
    assert RowSql(rows.schema, select="*, 1 as one").project(rows, [name]).equals(rows)


def test_faults_help() -> None:
    def fault(select: str | None = None, condition: str | None = None) -> tuple[str, str]:
        (found,) = RowSql(ROWS.schema, select, condition).faults()
        return found.expected, found.suggestion

    assert fault("bdy") == ("no column 'bdy'; it has id, qty, price, body, tags, info", "did you mean 'body'?")
    assert fault("lowwer(body)")[1] == "did you mean 'lower'?"
    assert "aggregate" in fault("sum(qty)")[0]
    assert "syntax error" in fault("id,, qty")[0]
    assert "expected a condition" in fault(None, "qty")[0]
    assert "two columns of one name" in fault("*, qty + 1 as qty")[0]
    assert "cast it" in fault("null as nothing")[1]


def test_names_that_differ_by_case_alone() -> None:
    (fault,) = RowSql(pa.schema([("A", pa.int64()), ("a", pa.int64())]), "A").faults()
    assert "case" in fault.expected


def test_a_failing_row_is_told_without_its_text() -> None:
    sql = RowSql(ROWS.schema, "body::int as n")
    assert sql.faults() == []
    with pytest.raises(RunError, match="try_cast") as caught:
        sql.project(ROWS, ["n"])
    assert "Hello" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_types_come_out_normal() -> None:
    sql = RowSql(ROWS.schema, "id::hugeint as big, body::varchar as s, 'x'::enum('x', 'y') as e, id::utinyint as u")
    assert sql.schema.types == [pa.decimal128(38, 0), pa.string(), pa.string(), pa.int16()]
    assert sql.project(ROWS, ["e", "u"]).to_pylist()[0] == {"e": "x", "u": 1}


def test_zones_do_not_depend_on_the_machine() -> None:
    stamps = pa.table({"t": pa.array([0], pa.timestamp("us", "Asia/Shanghai"))})
    sql = RowSql(stamps.schema, "t::varchar as said, hour(t) as h")
    assert sql.project(stamps, ["said", "h"]).to_pylist() == [{"said": "1970-01-01 00:00:00+00", "h": 0}]
