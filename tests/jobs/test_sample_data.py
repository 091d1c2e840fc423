"""The committed sample data are what the script writes, and have what the demo and its readers rely on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bizllm import api
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import StepInput, task_class
from tests.jobs.sample import DATA, FILES, JOBS, RUN_DATE, read


@pytest.fixture(scope="module")
def tickets() -> pa.Table:
    return pa.concat_tables([read(f"tickets/dt=2026-06-{day}/part-0.parquet") for day in (29, 30)])


@pytest.fixture(scope="module")
def bodies(tickets: pa.Table) -> list[str]:
    return [body for body in tickets["body"].to_pylist() if body and body.strip()]


def test_the_script_writes_what_is_committed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, JOBS / "sample" / "make.py", "--out", tmp_path], check=True, timeout=120)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")) == FILES
    for name in FILES:
        made, committed = pq.ParquetFile(tmp_path / name).read(), read(name)
        assert made.schema.equals(committed.schema), name
        assert made.equals(committed), name


def test_size_and_compression() -> None:
    assert sum((DATA / name).stat().st_size for name in FILES) < 3_000_000
    assert {pq.ParquetFile(DATA / name).metadata.row_group(0).column(0).compression for name in FILES} == {"ZSTD"}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("tickets/dt=2026-06-30/part-0.parquet", ["ticket_id"]),
        ("reviews/part-0.parquet", ["review_id"]),
        ("sales/part-0.parquet", ["store", "sku", "day"]),
        ("customers/part-0.parquet", ["customer_id"]),
        ("orders/part-0.parquet", ["order_id"]),
        ("content/articles/part-0.parquet", ["article_id"]),
        ("content/clicks/part-0.parquet", ["click_id"]),
        ("content/products/part-0.parquet", ["product_id"]),
        ("content/order_lines/part-0.parquet", ["line_id"]),
        ("stock/part-0.parquet", ["store", "sku"]),
        ("shipments/part-0.parquet", ["po_id"]),
        ("leaflets/part-0.parquet", ["leaflet_id"]),
        ("patient_questions/dt=2026-06-30/part-0.parquet", ["question_id"]),
    ],
)
def test_keys_are_unique_and_not_null(name: str, key: list[str]) -> None:
    table = read(name)
    assert all(table[column].null_count == 0 for column in key)
    assert table.group_by(key).aggregate([]).num_rows == table.num_rows


def test_tickets_count_days_languages_and_intents(tickets: pa.Table) -> None:
    assert tickets.schema.field("created_at").type == pa.timestamp("us", "UTC")
    days = Counter(moment.date() for moment in tickets["created_at"].to_pylist())
    assert set(days) == {date(2026, 6, 29), RUN_DATE} and days[RUN_DATE] >= 1000 and tickets.num_rows >= 1300
    languages = Counter(tickets["language"].to_pylist())
    assert 0.55 < languages["en"] / tickets.num_rows < 0.65 and languages["en"] + languages["zh"] == tickets.num_rows
    intents = Counter(tickets["intent"].to_pylist())
    assert len(intents) == 12 and min(intents.values()) >= 40
    assert 0 < tickets["product_id"].null_count < tickets.num_rows / 2
    assert len(set(tickets["ticket_id"].to_pylist())) == tickets.num_rows


def test_six_tickets_are_unusable_and_stay_within_the_reject_budget(tickets: pa.Table) -> None:
    bad = [(row["created_at"].date(), row["body"]) for row in tickets.to_pylist() if not (row["body"] or "").strip()]
    assert [day for day, _ in bad] == [RUN_DATE] * 6
    assert {body is None for _, body in bad} == {True, False} and "" in {body for _, body in bad}
    assert 6 / sum(moment.date() == RUN_DATE for moment in tickets["created_at"].to_pylist()) < 0.01


def test_ticket_lengths_are_spread(bodies: list[str]) -> None:
    lengths = np.array([len(body) for body in bodies])
    assert lengths.min() < 20 and (lengths > 6000).sum() >= 5
    assert np.percentile(lengths, 90) > 10 * np.percentile(lengths, 10)


def test_no_two_tickets_are_alike_and_no_slot_is_left_open(bodies: list[str]) -> None:
    assert len(set(bodies)) == len(bodies)
    assert not [body for body in bodies if re.search(r"<\w+>|\([^()]*\|[^()]*\)|#[a-z]+ ", body)]
    # Near duplicates: equal but for numbers and names of days, among those longer than a line.
    bare = Counter(re.sub(r"[\d\s]+", "", body) for body in bodies if len(body) > 120)
    assert max(bare.values()) == 1


def test_most_sentences_vary(bodies: list[str]) -> None:
    sentences = [s for body in bodies for s in re.split(r"(?<=[.!?。！？])\s*|\n+", body) if len(s) > 12]
    assert len(set(sentences)) / len(sentences) > 0.45
    assert Counter(sentences).most_common(1)[0][1] < 0.02 * len(sentences)


def test_chinese_tickets_are_simplified_chinese(tickets: pa.Table) -> None:
    chinese = "".join(
        row["body"] for row in tickets.to_pylist() if row["language"] == "zh" and row["body"] and row["body"].strip()
    )
    assert len(re.findall(r"[\u4e00-\u9fff]", chinese)) / len(chinese) > 0.6
    assert not set(chinese) & set("們個這為訂單貨還沒來說時")


def test_references_between_the_tables(tickets: pa.Table) -> None:
    customers = set(read("customers/part-0.parquet")["customer_id"].to_pylist())
    products = set(read("reviews/part-0.parquet")["product_id"].to_pylist())
    assert set(tickets["customer_id"].to_pylist()) <= customers
    assert set(read("orders/part-0.parquet")["customer_id"].to_pylist()) - {None} <= customers
    assert set(tickets["product_id"].to_pylist()) - {None} <= products
    assert set(read("sales/part-0.parquet")["sku"].to_pylist()) <= products


def test_labelled_tickets_come_before_the_nights_and_have_every_intent(tickets: pa.Table) -> None:
    intents = set(tickets["intent"].to_pylist())
    ends = []
    for part, least in (("train", 40), ("validation", 6), ("test", 16)):
        name = f"labelled_tickets/{part}.parquet"
        table = read(name)
        count = Counter(table["intent"].to_pylist())
        assert set(count) == intents and min(count.values()) >= least
        assert set(table["language"].to_pylist()) == {"en"}
        assert all(len(body) > 10 for body in table["body"].to_pylist())
        assert not set(table["ticket_id"].to_pylist()) & set(tickets["ticket_id"].to_pylist())
        assert (DATA / name).stat().st_size < 200_000
        days = [moment.date() for moment in table["created_at"].to_pylist()]
        assert not ends or min(days) > ends[-1], "what is held out is newer"
        ends.append(max(days))
    assert ends[-1] < date(2026, 6, 29)


def test_no_wording_of_labelled_tickets_is_in_two_parts_or_in_the_nights() -> None:
    wordings = yaml.safe_load((JOBS / "sample" / "labelled_en.yaml").read_text("utf-8"))
    for by_part in wordings.values():
        assert [len(by_part[part]) for part in ("train", "validation", "test")] == [12, 6, 16]
    told = [plain(text) for by_part in wordings.values() for some in by_part.values() for text in some]
    assert len(set(told)) == len(told)
    nights = plain((JOBS / "sample" / "tickets_en.yaml").read_text("utf-8"))
    assert not [text for text in told if text in nights]
    for part in ("train", "validation", "test"):
        bodies = read(f"labelled_tickets/{part}.parquet")["body"].to_pylist()
        assert len(set(bodies)) == len(bodies)


def test_the_help_centre_has_articles_exchanges_and_new_words_for_each_topic() -> None:
    articles, exchanges = read("articles/part-0.parquet"), read("exchanges/part-0.parquet")
    messages = read("messages/dt=2026-06-30/part-0.parquet").to_pylist()
    topics = set(zip(articles["topic"].to_pylist(), articles["language"].to_pylist(), strict=True))
    assert len(topics) == articles.num_rows == 20
    assert set(zip(exchanges["intent"].to_pylist(), exchanges["language"].to_pylist(), strict=True)) == topics
    assert max(exchanges["day"].to_pylist()) < RUN_DATE
    ratings = Counter(exchanges["rating"].to_pylist())
    assert ratings[1] == 20 and ratings.keys() == {1, 4, 5}
    assert len(messages) == 44 and {row["created_at"].date() for row in messages} == {RUN_DATE}
    known = {plain(text) for text in exchanges["message"].to_pylist()}
    assert not [row for row in messages if plain(row["body"]) in known]
    assert (
        sum(
            path.stat().st_size for name in ("articles", "exchanges", "messages") for path in (DATA / name).rglob("*.*")
        )
        < 50_000
    )


def test_the_service_desks_job_answers_what_its_articles_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan is whole; and, without an encoder, what it does not leave to people is right, and cites its language."""
    monkeypatch.setenv("BIZLLM_WAREHOUSE", str(tmp_path))
    path = str(JOBS / "customer_service.yaml")
    assert [step.task for step in api.plan(path, date=str(RUN_DATE)).steps] == [
        "answer",
        "reply",
        "classify",
        "summarize",
    ]
    said = yaml.safe_load(Path(path).read_text("utf-8"))["steps"]["message_answer"]
    articles, messages = read("articles/part-0.parquet"), read("messages/dt=2026-06-30/part-0.parquet")
    cls = task_class("answer")
    made = cls.Settings(**said | {"model": None})
    given = (
        made,
        StepInput("messages", messages.schema),
        RUN_DATE,
        {"passages": StepInput("articles", articles.schema)},
    )
    task = cls(*given, learned=cls(*given).learn({"passages": articles}))
    task.open(ModelLoader())
    rows = task.answer(messages).columns.to_pylist()
    told = yaml.safe_load((JOBS / "sample" / "help.yaml").read_text("utf-8"))
    topic_of = {text: topic for topic, both in told.items() for part in both.values() for text in part["new"]}
    cited = {row["article_id"]: (row["topic"], row["language"]) for row in articles.to_pylist()}
    right = [
        cited.get(row["passage_id"]) == (topic_of[message["body"]], message["language"])
        for message, row in zip(messages.to_pylist(), rows, strict=True)
    ]
    answered = [ok for ok, row in zip(right, rows, strict=True) if not row["escalate"]]
    assert len(answered) >= 8 and sum(answered) >= 0.9 * len(answered) and sum(right) >= 20


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def test_reviews_agree_with_their_stars() -> None:
    reviews = read("reviews/part-0.parquet")
    assert reviews.num_rows >= 600 and reviews.schema.field("stars").type == pa.int8()
    per_product = Counter(reviews["product_id"].to_pylist())
    assert len(per_product) == 40 and 5 <= min(per_product.values()) <= max(per_product.values()) <= 30
    assert set(reviews["stars"].to_pylist()) == {1, 2, 3, 4, 5}
    assert len(set(reviews["text"].to_pylist())) == reviews.num_rows
    glad = re.compile(
        r"highly recommended|worth every penny|could not be happier|非常满意，五星好评|强烈推荐|闭眼入", re.I
    )
    angry = re.compile(r"waste of money|never again|sent it back|已退货|千万别买|浪费钱", re.I)
    told = [(row["stars"], row["text"]) for row in reviews.to_pylist()]
    assert {stars for stars, text in told if glad.search(text)} == {5}
    assert {stars for stars, text in told if angry.search(text)} == {1}


def test_reviewers_of_a_product_share_a_complaint() -> None:
    texts = [row["text"] for row in read("reviews/part-0.parquet").to_pylist() if row["product_id"] == "P030"]
    assert sum(bool(re.search(r"assembl|put together|安装|装了两个小时", text, re.I)) for text in texts) >= 3


def test_the_market_speaks_of_every_brand_in_both_languages() -> None:
    reviews, news = (read(f"market/{name}/part-0.parquet").to_pylist() for name in ("reviews", "news"))
    for rows, key in ((reviews, "review_id"), (news, "news_id")):
        assert len({row[key] for row in rows}) == len(rows) and max(row["day"] for row in rows) <= RUN_DATE
        assert {row["language"] for row in rows} == {"en", "zh"} and not [
            row for row in rows if re.search("[<>|]", row["body"])
        ]
    brands = Counter(row["brand"] for row in reviews)
    assert set(brands) == {"Fernhollow", "Aldermoor", "Birchline", "Cobalt & Pine"} and brands["Cobalt & Pine"] < 150
    names = ("Fernhollow|蕨谷生活", "Aldermoor|桤野", "Birchline|桦线家居", "Cobalt & Pine|蓝松")
    assert all(any(re.search(name, row["body"]) for name in names) for row in news)
    recall = [
        row for row in news if date(2026, 6, 26) <= row["day"] <= date(2026, 6, 28) and re.search(names[1], row["body"])
    ]
    assert len(recall) >= 18


def test_birchlines_deliveries_go_wrong_in_june() -> None:
    rows = [row for row in read("market/reviews/part-0.parquet").to_pylist() if row["brand"] == "Birchline"]
    late = "late|rain|slow|missing|never came|晚了|太慢|雨里|丢了"
    share = [
        sum(bool(re.search(late, row["body"])) for row in part) / len(part)
        for part in ([r for r in rows if (r["day"] >= date(2026, 6, 8)) is after] for after in (False, True))
    ]
    assert share[0] < 0.25 and share[1] > 0.6


def test_order_mails_hold_what_is_said_to_be_true_of_them() -> None:
    articles = read("catalogue/part-0.parquet").to_pylist()
    assert len(articles) == 120 and len({(row["sku"], row["currency"]) for row in articles}) == 120
    known = {row["sku"] for row in articles}
    mails = [row for day in (29, 30) for row in read(f"order_mails/dt=2026-06-{day}/part-0.parquet").to_pylist()]
    assert len({row["mail_id"] for row in mails}) == 150
    languages = Counter(row["language"] for row in mails)
    assert languages.keys() == {"en", "zh"} and min(languages.values()) > 40
    faults = Counter(fault for row in mails for fault in row["true_faults"])
    assert len(faults) == 9 and min(faults.values()) >= 2
    assert 60 < sum(not row["true_faults"] for row in mails) < 120
    for row in mails:
        assert {line["sku"] for line in row["true_lines"]} <= known
        assert bool(row["true_lines"]) != ("no_items" in row["true_faults"])
        for told in (row["true_number"], row["true_phone"], row["true_email"]):
            assert told is None or told in row["body"]
        assert row["true_total"] is None or f"{row['true_total']:,.2f}" in row["body"]
        if "duplicate" in row["true_faults"]:
            earlier = [one for one in mails if one["received_at"] < row["received_at"]]
            same = [(one["customer_id"], one["true_lines"]) for one in earlier]
            assert (row["customer_id"], row["true_lines"]) in same
    assert sum((DATA / name).stat().st_size for name in FILES if "order_mails" in name or "catalogue" in name) < 200_000


def test_notes_carry_personal_data_and_labels_that_the_labelled_ones_have() -> None:
    notes, labelled = read("notes/dt=2026-06-30/part-0.parquet"), read("labelled_notes/part-0.parquet")
    assert (notes.num_rows, labelled.num_rows) == (98, 72)
    bodies = [body for body in notes["body"].to_pylist() if body and body.strip()]
    assert len(bodies) == 96 and len({*bodies, *labelled["body"].to_pylist()}) == 96 + 72
    assert all(re.search(r"phone \d{3}-555-\d{4}|电话138\d{8}", body) for body in bodies)
    labels = set(labelled["diagnosis"].to_pylist())
    assert set(notes["diagnosis"].to_pylist()) == labels | {None} and len(labels) == 6
    assert {*notes["language"].to_pylist()} == {"en", "zh"}
