"""What the tables promise, written down, and every way in which a promise can be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner, Result

from bizllm import api
from bizllm.cli import app
from bizllm.tables.type_names import type_name, type_of
from tests.published import D1, D2, JOB, Shop, ticket

BATCHES = {
    "boolean": pa.bool_(),
    "decimal(10, 2)": pa.decimal128(10, 2),
    "timestamptz": pa.timestamp("us", "UTC"),
    "list<struct<a: long, b: list<map<string, double>>>>": pa.list_(
        pa.struct({"a": pa.int64(), "b": pa.list_(pa.map_(pa.string(), pa.float64()))})
    ),
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Of its tables two are published: `summary` with its rejects."""
    made = Shop(tmp_path)
    made.publish("summary__rejects", D1, "r1", [])
    made.publish("summary", D1, "r1", [ticket("t1", "One")])
    return made


def check(path: str, file: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["contract", path, "--against", str(file), *more])


def test_a_contract_is_written_read_and_holds(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "contract.yaml"
    said = CliRunner().invoke(app, ["contract", shop.path, "--write", str(file)])
    assert said.stdout == f"wrote {file}: 7 tables\n"
    text = file.read_text()
    assert text == CliRunner().invoke(app, ["contract", shop.path]).stdout, "the same without a file"
    columns = yaml.safe_load(text)["tables"]["summary"]["columns"]
    assert list(columns) == shop.steps["summary"].schema.names
    assert columns["ticket_id"] == {"type": "string", "nullable": False}
    assert columns["spans"]["type"] == "list<struct<document: int, start: int, end: int>>"
    assert columns["run_date"] == {"type": "date", "nullable": False, "meaning": "the night; the partition"}
    demand = yaml.safe_load(text)["tables"]["demand"]
    assert (demand["key"], demand["partition"]) == (["store", "day"], ["run_date"])
    assert demand["columns"]["q50"]["meaning"].startswith("a quantile for each of `levels`")
    assert demand["columns"]["day"]["meaning"].startswith("first moment of the period")
    assert text.count("\n      ") == sum(len(table["columns"]) for table in yaml.safe_load(text)["tables"].values())
    done = check(shop.path, file)
    assert (done.exit_code, done.stdout) == (0, f"{file} holds\n")


def test_published_tables_are_checked_without_the_sources(shop: Shop, tmp_path: Path) -> None:
    """A reader's CI has rights to the tables alone; what was not published yet can't be known there."""
    file = tmp_path / "contract.yaml"
    api.contract(shop.path, write=str(file))
    (tmp_path / "tickets.parquet").unlink()
    assert check(shop.path, file).exit_code == 2
    for step in ("demand", "secret"):
        shop.publish(f"{step}__rejects", D1, "r1", [])
        shop.publish(step, D1, "r1", [])
    assert check(shop.path, file).exit_code == 0
    assert check(shop.path, file, "--planned").exit_code == 2


def test_columns_that_came_and_types_that_widened_are_notes(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "contract.yaml"
    api.contract(shop.path, write=str(file))
    schema = shop.steps["summary"].schema
    wider = schema.set(schema.get_field_index("input_tokens"), pa.field("input_tokens", pa.int64()))
    wider = wider.set(schema.get_field_index("coverage"), pa.field("coverage", pa.float64()))
    shop.warehouse.publish(
        "shop", "summary", wider.append(pa.field("tone", pa.string())), D2, [], {"run_id": "r2"}, lambda: None
    )
    done = check(shop.path, file)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "note    summary.input_tokens: int became long",
        "note    summary.coverage: float became double",
        "note    summary.tone: is new: string",
        f"{file} holds",
    ]


def edited(shop: Shop, tmp_path: Path, *keys: str, value: Any) -> Path:
    """The contract as it would be if the table had once been so: `keys` lead to what is put in, or taken out."""
    said = api.contract(shop.path)
    contract: Any = {"job": said["job"], "tables": said["tables"]}
    at = contract
    for key in keys[:-1]:
        at = at[key]
    if value is None:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    file = tmp_path / "before.yaml"
    file.write_text(yaml.safe_dump(contract, sort_keys=False))
    return file


COLUMNS = ("tables", "summary", "columns")


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        ((*COLUMNS, "tone"), {"type": "string"}, "summary.tone: was string and is gone"),
        ((*COLUMNS, "sumary"), {"type": "string"}, "summary.sumary: was string and is gone"),
        ((*COLUMNS, "input_tokens"), {"type": "long"}, "summary.input_tokens: long became int, which"),
        ((*COLUMNS, "coverage"), {"type": "double"}, "summary.coverage: double became float, which"),
        ((*COLUMNS, "coverage"), {"type": "int"}, "summary.coverage: int became float, which is no wider type"),
        ((*COLUMNS, "spans"), {"type": "list<struct<page: int>>"}, "summary.spans: list<struct<page: int>>"),
        ((*COLUMNS, "summary"), {"type": "string", "nullable": False}, "summary.summary: was never null and may be"),
        ((*COLUMNS, "run_id"), {"type": "string"}, "summary.run_id: might be null, and is promised not to be"),
        (("tables", "summary", "key"), ["file", "row"], "summary: the key was file, row and is ticket_id now"),
        (("tables", "summary", "partition"), ["day"], "summary: was partitioned by day and is by run_date"),
        (("tables", "sumary"), {"columns": {"a": {"type": "int"}}}, "sumary: the table is gone"),
    ],
)  # fmt: skip
def test_what_breaks_a_reader_fails(shop: Shop, tmp_path: Path, keys: tuple[str, ...], value: Any, said: str) -> None:
    done = check(shop.path, file := edited(shop, tmp_path, *keys, value=value))
    assert done.exit_code == 1
    assert said in done.stderr and done.stderr.endswith(f"{file} does not hold: 1 change breaks it\n")
    told = json.loads(check(shop.path, file, "--json").stdout)
    assert not told["holds"] and said in told["breaking"][0]["told"] and told["breaking"][0]["breaks"]


def test_a_rename_is_guessed(shop: Shop, tmp_path: Path) -> None:
    file = edited(shop, tmp_path, *COLUMNS, value={"nuance": {"type": "float"}, "summry": {"type": "string"}})
    said = check(shop.path, file).stderr
    assert "summary.nuance: was float and is gone; was it renamed to 'coverage'?" in said
    assert "summary.summry: was string and is gone; did you mean 'summary'?" in said


def test_what_the_job_would_write_next(shop: Shop, tmp_path: Path) -> None:
    """A level that a job no longer has leaves a column that is null from then on: the owner's CI sees it before."""
    shop.publish("demand__rejects", D1, "r1", [])
    shop.publish("demand", D1, "r1", [])
    file = tmp_path / "contract.yaml"
    api.contract(shop.path, write=str(file))
    Path(shop.path).write_text(JOB.replace("horizon: 2", "horizon: 2, levels: [0.1, 0.9]"))
    assert check(shop.path, file).exit_code == 0, "the published table has the column"
    done = check(shop.path, file, "--planned")
    assert done.exit_code == 1 and "demand.q50: was double and is gone" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "job: other\ntables: {a: {columns: {x: {type: int}}}}",
            "c.yaml:1 job: 'other': is the contract of another job",
        ),
        (
            "job: shop\ntables:\n  a:\n    columns: {x: {type: strin}}",
            "c.yaml:4 tables.a.columns.x.type: 'strin': expected",
        ),
        ("job: shop\ntables:\n  a:\n    colums: {x: {type: int}}", "c.yaml:4 tables.a.colums: unknown key 'colums'"),
        ("job: shop\ntables: {a: {columns: {}}}", "c.yaml:2 tables.a.columns"),
        ("- 1", "c.yaml:1: expected a mapping"),
    ],
)
def test_a_faulty_contract_file(shop: Shop, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    done = check(shop.path, file)
    assert done.exit_code == 2 and said in done.stderr


def test_either_write_or_against(shop: Shop) -> None:
    done = CliRunner().invoke(app, ["contract", shop.path, "--write", "a.yaml", "--against", "b.yaml"])
    assert done.exit_code == 2 and "expected either --write or --against" in done.stderr
    done = CliRunner().invoke(app, ["contract", shop.path, "--write", "/proc/none/a.yaml"])
    assert done.exit_code == 2 and "--write: '/proc/none/a.yaml': can't be written" in done.stderr


@pytest.mark.parametrize(("name", "kind"), BATCHES.items())
def test_names_of_types_are_read_again(name: str, kind: pa.DataType) -> None:
    assert type_name(kind) == name and type_of(name) == kind


@pytest.mark.parametrize("name", ["", "list", "list<>", "list<int", "map<int>", "struct<a>", "decimal(39, 1)", "Int"])
def test_names_of_no_types(name: str) -> None:
    assert type_of(name) is None
