"""The SQL of docs/consumers.md in the engines that read Iceberg, and the dbt project, on tables that were published."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.consumers.spark_jars import spark_jars
from tests.published import D1, D2, Tables, demo

pytestmark = pytest.mark.consumers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/consumers.md").read_text()
ENGINES = ROOT / "build/consumer-engines"
SITE = ENGINES / "lib/python3.11/site-packages"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    if not ENGINES.exists():
        pytest.skip("make test-consumers makes the engines' environment")
    monkeypatch.setenv("BIZLLM_WAREHOUSE", str(tmp_path / "out/warehouse"))
    monkeypatch.chdir(tmp_path)
    yield demo()


def statements(dialect: str, **places: object) -> list[str]:
    found = ";".join(re.findall(rf"^<!-- {dialect} -->\n```sql\n(.*?)^```$", PAGE, re.M | re.S))
    for name, value in places.items():
        found = found.replace(f"{{{name}}}", str(value))
    return [one.strip() for one in found.split(";") if one.strip()]


def first_snapshot(tables: Tables) -> int:
    return tables.warehouse.history("demo", "customer_segment")[-1].snapshot_id


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In the engines' environment, which knows none of our packages."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(ENGINES / "bin" / command[0]), *command[1:]],
        capture_output=True, text=True, timeout=240, env={**inherited, **environment},
    )  # fmt: skip


def test_spark(tables: Tables, tmp_path: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    try:
        jars = spark_jars(SITE, tmp_path / "jackson.jar")
    except FileNotFoundError as missing:
        pytest.skip(f"there is no {missing}")
    ((settings),) = re.findall(r"^<!-- spark: settings -->\n```text\n(.*?)^```$", PAGE, re.M | re.S)
    given = dict(line.split() for line in settings.splitlines()) | {"spark.jars": ",".join(map(str, jars))}
    asked = statements("spark", snapshot=first_snapshot(tables))
    (tmp_path / "settings.json").write_text(json.dumps(given))
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    done = run("python", str(ROOT / "tests/consumers/spark_child.py"), "settings.json", "asked.json")
    assert done.returncode == 0, done.stderr[-3000:]
    view, sizes, snapshots, then, changed = json.loads(done.stdout.splitlines()[-1])
    assert view == [] and sizes == [{"segment": "loyal", "customers": 2}, {"segment": "new", "customers": 1}]
    assert [(one["run_id"], one["run_date"]) for one in snapshots] == [
        ("r1", str(D1)),
        ("r2", str(D2)),
        ("r3", str(D1)),
    ]
    assert [(one["customer_id"], one["segment"]) for one in then] == [("C1", "loyal"), ("C2", "new")]
    assert sorted(one["run_date"] for one in changed) == [str(D1), str(D2)]
    assert then[0]["produced_at"] == "2026-07-01 01:02:03.456789"


def test_duckdb_with_its_iceberg_extension(tables: Tables) -> None:
    table = tables.warehouse.load("demo", "customer_segment")
    assert table is not None
    asked = statements("duckdb", metadata=table.metadata_location, snapshot=first_snapshot(tables))
    extensions = [str(next(SITE.rglob(f"{name}.duckdb_extension"))) for name in ("avro", "iceberg")]
    code = (
        "import duckdb, json, sys\nconnection = duckdb.connect()\n"
        "for file in json.loads(sys.argv[1]): connection.execute(f\"load '{file}'\")\n"
        "rows = [connection.execute(one).fetchall() for one in json.loads(sys.argv[2])]\n"
        "print(json.dumps(rows, default=str))"
    )
    done = run("python", "-c", code, json.dumps(extensions), json.dumps(asked))
    assert done.returncode == 0, done.stderr[-3000:]
    newest, snapshots, then = json.loads(done.stdout)
    assert sorted((row[0], row[1]) for row in newest) == [("C1", "loyal"), ("C2", "loyal"), ("C3", "new")]
    assert len(snapshots) == 3 and sorted((row[0], row[1]) for row in then) == [("C1", "loyal"), ("C2", "new")]


def test_the_dbt_project(tables: Tables, tmp_path: Path) -> None:
    project = tmp_path / "dbt"
    shutil.copytree(ROOT / "docs/consumers/dbt", project)

    def dbt(*words: str) -> subprocess.CompletedProcess[str]:
        places = {
            "DBT_PROFILES_DIR": str(project),
            "BIZLLM_CATALOG": f"sqlite:///{tmp_path}/out/warehouse/catalog.db",
            "BIZLLM_MARTS": str(tmp_path / "marts.duckdb"),
        }
        return run("dbt", "--no-use-colors", *words, "--project-dir", str(project), **places)

    def marts(sql: str) -> list[Any]:
        code = "import duckdb, json, sys\nrows = duckdb.connect(sys.argv[1]).sql(sys.argv[2]).fetchall()\n"
        code += "print(json.dumps(rows, default=str))"
        done = run("python", "-c", code, str(tmp_path / "marts.duckdb"), sql)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    built = dbt("build")
    assert built.returncode == 0 and "PASS=9 WARN=0 ERROR=0 SKIP=0" in built.stdout, built.stdout
    every = "select run_date, customer_id, segment, run_id from customer_segment order by 1, 2"
    rows = [[str(D1), "C1", "loyal", "r3"], [str(D1), "C2", "lost", "r3"]]
    newest = [[str(D2), "C1", "loyal", "r2"], [str(D2), "C2", "loyal", "r2"], [str(D2), "C3", "new", "r2"]]
    assert marts(every) == rows + newest
    sizes = "select segment, customers from segment_sizes where run_date = '2026-06-30' order by 1"
    assert marts(sizes) == [["loyal", 2], ["new", 1]]
    assert len(marts("select * from customer_segment_newest")) == 3

    tables.publish("customer_segment", D1, "r5", [{"customer_id": "C9", "segment": "new"}])
    assert dbt("build").returncode == 0
    assert marts(every) == [[str(D1), "C9", "new", "r5"], *newest], "a rerun night is taken again, whole"

    stale = dbt("source", "freshness")
    assert stale.returncode == 1 and "ERROR STALE" in stale.stdout, "the last night of these tables is long ago"
    tables.note(D2, "r6", 3, "customer_segment", state="failed", at=datetime.now(UTC))
    assert dbt("source", "freshness").returncode == 1, "a night that failed is not fresh"
    tables.note(D2, "r7", 3, "customer_segment", at=datetime.now(UTC))
    fresh = dbt("source", "freshness")
    assert fresh.returncode == 0 and "PASS freshness of demo.runs" in fresh.stdout, fresh.stdout

    reject = {"customer_id": "C8", "scope": "group", "code": "failed"}
    tables.publish("customer_segment__rejects", D2, "r8", [reject])
    tables.publish("customer_segment", D2, "r8", [{"customer_id": "C1", "segment": "new"}] * 2)
    broken = dbt("build")
    failed = re.findall(r"FAIL 1 (\w+) \.", broken.stdout)
    assert broken.returncode == 1 and sorted(set(failed)) == [
        "one_row_for_each_customer_and_night",
        "rejects_within_budget",
    ]


def test_dbt_says_that_its_variable_is_missing(tables: Tables, tmp_path: Path) -> None:
    project = str(ROOT / "docs/consumers/dbt")
    words = ("--project-dir", project, "--target-path", str(tmp_path / "target"), "--log-path", str(tmp_path))
    done = run("dbt", "parse", *words, DBT_PROFILES_DIR=project)
    assert done.returncode == 2 and "BIZLLM_CATALOG" in done.stdout
