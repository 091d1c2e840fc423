"""Secrets and row text stay where they belong, over a whole night with all its files, logs and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NIGHT = "2026-03-10"
SECRET = "tOp-s3cret-8461"
CANARY, HIDDEN = "Ophelia Quill lives at 7 Marsh Lane", "Wilhelmina Pike lives at 9 Fen Road"
Job = Callable[..., str]


@pytest.fixture
def night(job: Job, tmp_path: Path) -> tuple[Path, list[str]]:
    """Of a plain source and a sensitive one: (the folder of everything that it left, what it printed and logged)."""
    for source, canary in (("tickets", CANARY), ("letters", HIDDEN)):
        bodies = [f"{canary}. It is wet. I want my money back.", None, canary + "\x00"]
        folder = tmp_path / source / f"dt={NIGHT}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"ticket_id": ["a", "b", "c"], "body": bodies}), folder / "part-0.parquet")
    properties = {"s3.secret-access-key": "${NIGHT_SECRET}", "header.X-Private": "${NIGHT_SECRET}"}
    path = job(
        sources__letters={"path": "letters", "key": ["ticket_id"], "partition": "dt", "sensitive": True},
        steps__private={"task": "summarize", "input": "letters", "text": "body", "max_sentences": 2},
        steps__segments=None,
        sources__orders=None,
        warehouse={"path": "wh", "properties": properties},
        runtime={"num_cpus": 2, "object_store_mb": 100},
    )
    log = tmp_path / "night.log"
    env = os.environ | {"NIGHT_SECRET": SECRET, "BIZLLM_LOG": "debug", "BIZLLM_LOG_FILE": str(log)}
    said = []
    for verb in (["plan"], ["run", "--json"], ["runs", "--json"]):
        command = [sys.executable, "-m", "bizllm.cli", verb[0], path, *verb[1:]]
        command += ["--date", NIGHT] if verb[0] != "runs" else []
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        said += [done.stdout, done.stderr]
    return tmp_path, [*said, log.read_text()]


def everything(folder: Path) -> dict[str, str]:
    """What each file of the warehouse holds, Parquet and Avro decoded."""
    from pyiceberg.avro.file import AvroFile
    from pyiceberg.io.pyarrow import PyArrowFileIO

    found = {}
    for file in (folder / "wh").rglob("*"):
        if not file.is_file():
            continue
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file)
            found[str(file)] = f"{table.read().to_pylist()} {table.schema_arrow.metadata} {table.metadata.metadata}"
        elif file.suffix == ".avro":
            with AvroFile(PyArrowFileIO().new_input(str(file))) as records:
                found[str(file)] = str(list(records))
        else:
            found[str(file)] = file.read_bytes().decode("latin-1")
    return found


def test_secrets_and_texts_stay_where_they_belong(night: tuple[Path, list[str]]) -> None:
    folder, said = night
    assert json.loads(said[2])["state"] == "done", said
    files = everything(folder)
    assert len(files) > 10 and not [name for name, text in files.items() if SECRET in text]
    texts = ("Ophelia", "Marsh", "Wilhelmina", "Fen Road")
    assert not [text for text in said if SECRET in text or any(word in text for word in texts)]
    holding = {name for name, text in files.items() if "Ophelia" in text}
    # The summary and Iceberg's bounds of that column are the table; the report shows samples, and keeps their rows.
    places = {
        next((p for p in ("/summary/", "/report.html", "/summary.exhibit.parquet") if p in name), name)
        for name in holding
    }
    assert places == {"/summary/", "/report.html", "/summary.exhibit.parquet"}
    # Of a sensitive source nothing is in the report.
    holding = {name for name, text in files.items() if "Wilhelmina" in text}
    assert holding and all("/private/" in name for name in holding)
