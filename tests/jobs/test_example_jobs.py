"""The jobs that show bizllm as a company would use it run on their sample data, and say what is true of it."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bizllm import api

ROOT = Path(__file__).parents[2]
NIGHT = "2026-06-30"
slow = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("local_ray")


def night(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Every row of each step's table, once the job is done."""
    monkeypatch.setenv("BIZLLM_WAREHOUSE", str(folder))
    path = str(ROOT / f"jobs/{name}.yaml")
    result = api.run(path, date=NIGHT)
    assert {step.state for step in result.steps} == {"done"}, [(step.step, step.error) for step in result.steps]
    assert Path(result.report).exists()
    return {step.step: api.show(path, step.step, limit=100_000).to_pylist() for step in result.steps}


def sample(name: str, key: str) -> dict[Any, dict[str, Any]]:
    """The rows of a sample table by a key."""
    return {row[key]: row for row in pq.read_table(ROOT / f"jobs/data/{name}").to_pylist()}


def test_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night("operations", tmp_path, monkeypatch)
    known = sample("order_mails", "mail_id")
    right = [
        sorted((line["sku"], line["quantity"]) for line in row["lines"] if line["sku"])
        == sorted((line["sku"], line["quantity"]) for line in known[row["mail_id"]]["true_lines"])
        for row in made["mail_orders"]
    ]
    assert len(right) == 75 and sum(right) >= 68
    numbers = [(row["order_number"], known[row["mail_id"]]["true_number"]) for row in made["mail_facts"]]
    found = [a for a, b in numbers if a is not None]
    assert len(found) > 10 and sum(a == b for a, b in numbers if a is not None) >= 0.9 * len(found)
    ordered = [row for row in made["reorder"] if row["order_quantity"] > 0]
    assert 0 < len(ordered) < len(made["reorder"]) == 91
    assert all(0 <= row["late_probability"] <= 1 for row in made["order_risk"])


def test_medical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night("medical", tmp_path, monkeypatch)
    said = json.dumps([made["note_records"], made["note_suggestions"]], default=str, ensure_ascii=False)
    notes = sample("notes", "note_id")
    planted = {found for row in notes.values() for found in re.findall(r"\d{3}-555-\d{4}|138\d{8}", row["body"] or "")}
    assert len(planted) > 80 and not [number for number in planted if number in said], "personal data in a table"
    first = [row["suggestions"][0]["label"] == notes[row["note_id"]]["diagnosis"] for row in made["note_suggestions"]]
    assert sum(first) >= 0.9 * len(first)
    assert all(row["notice"] for row in [*made["note_suggestions"], *made["question_answer"]])
    asked = sample("patient_questions", "question_id")
    for row in made["question_answer"]:
        right = asked[row["question_id"]]["leaflet_id"]
        assert row["escalate"] if right is None else row["passage_id"] == right
    assert sum(row["urgent"] for row in made["question_answer"]) == 5


@slow
def test_customer_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night("customer_service", tmp_path, monkeypatch)
    asked = sample("messages", "message_id")
    assert {row["message_id"] for row in made["message_answer"]} == set(asked)
    languages = [(asked[row["message_id"]]["language"], row["passage_id"]) for row in made["message_answer"]]
    assert all(cited is None or cited.endswith(language) for language, cited in languages)
    assert (
        4 <= sum(row["escalate"] for row in made["message_answer"]) <= 34
    )  # short messages: rather a person than a guess
    assert all(row["reply"] or row["escalate"] for row in made["message_reply"])


@slow
def test_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night("content", tmp_path, monkeypatch)
    articles = sample("content/articles", "article_id")
    clicks = sample("content/clicks", "click_id").values()
    last = date.fromisoformat(NIGHT)
    read = {(click["reader_id"], click["article_id"]) for click in clicks if click["clicked_at"].date() <= last}
    shown = {(row["reader_id"], row["item"]) for row in made["to_read"]}
    assert shown and not shown & read
    assert all(articles[item]["published_at"].date() <= last for _, item in shown)
    assert made["next_products"] and made["bought_with"]


@slow
def test_market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = night("market", tmp_path, monkeypatch)
    verdicts = {(row["brand"], row["aspect"]): row["verdict"] for row in made["brand_rivals"] if row["verdict"]}
    assert verdicts and {brand for brand, _ in verdicts} <= {"Fernhollow", "Aldermoor", "Birchline", "Cobalt & Pine"}
    assert verdicts.get(("Birchline", "delivery")) != "strength"
    assert {row["brand"] for row in made["brand_trend"]} == {row["brand"] for row in made["brand_summary"]}
