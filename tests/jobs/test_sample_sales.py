"""What was sold in the committed sample data: series, orders and stock, as the demo and its readers rely on."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, date, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.jobs.sample import RUN_DATE, read


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
