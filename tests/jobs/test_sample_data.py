"""The committed sample data are what the script writes, and have what the demo and its readers rely on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from bizllm import api
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import StepInput, task_class

JOBS = Path(__file__).parents[2] / "jobs"
DATA = JOBS / "data"
RUN_DATE = date(2026, 6, 30)
FILES = sorted(str(path.relative_to(DATA)) for path in DATA.rglob("*.parquet"))


def read(name: str) -> pa.Table:
    return pq.ParquetFile(DATA / name).read()


@pytest.fixture(scope="module")
def tickets() -> pa.Table:
    return pa.concat_tables([read(f"tickets/dt=2026-06-{day}/part-0.parquet") for day in (29, 30)])


@pytest.fixture(scope="module")
def bodies(tickets: pa.Table) -> list[str]:
    return [body for body in tickets["body"].to_pylist() if body and body.strip()]


@pytest.fixture(scope="module")
def sales() -> dict[tuple[str, str], dict[date, int]]:
    """Units by day of each (store, sku)."""
    series: dict[tuple[str, str], dict[date, int]] = {}
    table = read("sales/part-0.parquet")
    for store, sku, day, units in zip(
        *(table[name].to_pylist() for name in ("store", "sku", "day", "units")), strict=True
    ):
        series.setdefault((store, sku), {})[day] = units
    return series


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


def test_sales_series_and_their_kinds(sales: dict[tuple[str, str], dict[date, int]]) -> None:
    assert len(sales) >= 60
    assert min(day for days in sales.values() for day in days) == date(2024, 7, 1)
    assert max(day for days in sales.values() for day in days) == RUN_DATE
    first = {key: (RUN_DATE - min(days)).days + 1 for key, days in sales.items()}
    assert sorted(n for n in first.values() if n <= 130) == [4, 20, 35, 60, 90, 120]
    assert sum(max(days) < date(2026, 1, 1) for days in sales.values()) == 1  # discontinued
    assert [key for key, days in sales.items() if len(set(days.values())) == 1] == [("CHI", "P038")]
    intermittent = [days for days in sales.values() if len(days) < 365 and first_day_is_old(days)]
    assert len(intermittent) >= 8 and all(min(days.values()) > 0 for days in intermittent)
    full = [days for days in sales.values() if len(days) > 680]
    assert len(full) >= 60
    assert any(len(days) < 730 for days in full), "some stock-outs are missing rows"
    assert any(list(days.values()).count(0) > 3 for days in full), "others are zeros"


def first_day_is_old(days: dict[date, int]) -> bool:
    return min(days) < date(2024, 12, 31) and max(days) > date(2026, 3, 1)


def test_holidays_seasons_and_promotions_show() -> None:
    sales = read("sales/part-0.parquet")
    sql = duckdb.connect()
    sql.register("sales", sales)

    def units(where: str) -> float:
        row = sql.execute(f"select sum(units) / count(distinct day) from sales where {where}").fetchone()
        assert row is not None and row[0] is not None
        return float(row[0])

    china, west = "store in ('SHA', 'BJS', 'CTU')", "store in ('LON', 'MAN', 'EDI', 'NYC', 'CHI')"
    for year in (2024, 2025):
        assert units(f"{china} and day = '{year}-11-11'") > 2 * units(
            f"{china} and day between '{year}-10-10' and '{year}-10-30'"
        )
        assert units(f"{west} and sku <> 'P038' and day = '{year}-12-25'") == 0
        assert units(f"{china} and day = '{year}-12-25'") > 0
    for friday in ("2024-11-29", "2025-11-28"):
        assert units(f"{west} and day = '{friday}'") > 1.8 * units(
            f"{west} and day between '2025-09-01' and '2025-10-15'"
        )
    for feast in ("2025-01-29", "2026-02-17"):
        before = f"{china} and day between date '{feast}' - 14 and date '{feast}' - 3"
        assert units(f"{china} and day = '{feast}'") < 0.3 * units(before)
    assert units(f"{china} and day = '2026-06-18'") > 1.7 * units(
        f"{china} and day between '2026-04-10' and '2026-04-28'"
    )
    assert units("sku = 'P033' and month(day) = 7") > 3 * units("sku = 'P033' and month(day) = 1")
    assert units("sku = 'P032' and month(day) = 1") > 3 * units("sku = 'P032' and month(day) = 7")
    assert units("sku = 'P023' and dayofweek(day) = 6") > 1.2 * units("sku = 'P023' and dayofweek(day) = 2")
    uplift = sql.execute(
        "select median(with_promo / without) from (select avg(units) filter (promo) as with_promo, "
        "avg(units) filter (not promo) as without from sales where sku in ('P001', 'P014', 'P018') group by store, sku)"
    ).fetchone()
    assert uplift is not None and uplift[0] > 1.3


def test_orders_hold_different_kinds_of_customers_and_some_after_the_run_date() -> None:
    orders = read("orders/part-0.parquet")
    assert orders["customer_id"].null_count > 100
    late = pc.sum(pc.greater_equal(orders["ordered_at"], pa.scalar(datetime(2026, 7, 1, tzinfo=UTC)))).as_py()
    assert 20 < late < 0.02 * orders.num_rows
    assert pc.min(orders["amount"]).as_py() > 0 and pc.min(orders["discount"]).as_py() == 0
    sql = duckdb.connect()
    sql.register("orders", orders)
    groups = sql.execute(
        """
        with each as (
            select customer_id, count(*) as n, avg(amount) as amount, avg(returned::int) as returned,
                   avg((discount > 0)::int) as offers, date '2026-06-30' - max(ordered_at)::date as quiet
            from orders where customer_id is not null and ordered_at < '2026-07-01' group by 1)
        select count(*), count(*) filter (n = 1), count(*) filter (n > 25 and amount > 90),
               count(*) filter (quiet > 300 and n > 2), count(*) filter (offers > 0.75 and n > 5),
               count(*) filter (returned > 0.35 and n > 5)
        from each
        """
    ).fetchone()
    assert groups is not None
    assert groups[0] == 1000 and all(count >= 30 for count in groups[1:])


def test_customers() -> None:
    customers = read("customers/part-0.parquet")
    assert customers.num_rows == 1000 and 0 < customers["birth_year"].null_count < 400
    assert set(customers["country"].to_pylist()) == {"GB", "US", "CN"}


def test_readers_of_the_journal_have_interests_and_some_of_it_is_still_to_come() -> None:
    articles = {row["article_id"]: row for row in read("content/articles/part-0.parquet").to_pylist()}
    assert len({row["title"] for row in articles.values()}) == len({row["body"] for row in articles.values()}) == 70
    assert Counter(row["language"] for row in articles.values()) == {"en": 35, "zh": 35}
    clicks = read("content/clicks/part-0.parquet").to_pylist()
    assert all(articles[click["article_id"]]["published_at"] < click["clicked_at"] for click in clicks)
    late = [row["published_at"].date() > RUN_DATE for row in articles.values()]
    assert 0 < sum(late) < 10 and any(click["clicked_at"].date() > RUN_DATE for click in clicks)
    topics: dict[str, Counter[str]] = {}
    for click in clicks:
        topics.setdefault(click["reader_id"], Counter())[articles[click["article_id"]]["topic"]] += 1
    often = sum(sum(count for _, count in of.most_common(2)) for of in topics.values())
    assert 0.85 < often / len(clicks) < 1


def test_order_lines_have_returns_repeats_and_two_products_nobody_bought() -> None:
    lines = read("content/order_lines/part-0.parquet").to_pylist()
    sold = {line["product_id"] for line in lines}
    assert {row["product_id"] for row in read("content/products/part-0.parquet").to_pylist()} - sold == {"P034", "P036"}
    assert sum(line["quantity"] == -1 for line in lines) == 60
    assert any(line["ordered_at"].date() > RUN_DATE for line in lines)
    assert {line["customer_id"] for line in lines} <= set(read("customers/part-0.parquet")["customer_id"].to_pylist())


def test_stock_is_that_of_what_is_sold(sales: dict[tuple[str, str], dict[date, int]]) -> None:
    rows = read("stock/part-0.parquet").to_pylist()
    assert set(sales) - {(row["store"], row["sku"]) for row in rows} == {("MAN", "P002")}  # discontinued
    assert all((row["store"], row["sku"]) in sales for row in rows)
    assert min(row["on_hand"] for row in rows) == 0 and any(row["on_order"] for row in rows)
    assert all(row["on_order"] % row["pack_size"] == 0 and 0 < row["holding"] < row["margin"] for row in rows)


def test_suppliers_differ_and_some_orders_are_out() -> None:
    rows = read("shipments/part-0.parquet").to_pylist()
    still = [row for row in rows if row["arrived_on"] is None]
    assert 60 < len(still) < 200 and any(row["promised_on"] < RUN_DATE for row in still)
    assert all(row["ordered_on"] <= row["arrived_on"] <= RUN_DATE for row in rows if row["arrived_on"])
    assert all(row["ordered_on"] < row["promised_on"] for row in rows)
    names = {row["supplier"] for row in rows}
    assert len({name for name in names if re.search("[\u4e00-\u9fff]", name)}) == 5 and len(names) == 9
    late = Counter(row["supplier"] for row in rows if row["arrived_on"] and row["arrived_on"] > row["promised_on"])
    came = Counter(row["supplier"] for row in rows if row["arrived_on"])
    shares = sorted(late[name] / came[name] for name in names)
    assert shares[0] < 0.2 and shares[-1] > 0.7


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
