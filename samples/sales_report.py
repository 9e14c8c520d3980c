"""Data in several steps, declared: read, check, add up for each region, report: `durable-worker samples.sales_report`.

    durable graph sales-2026-10 -o sales.svg

The steps are data, so a program may add to them, and `durable graph` shows what each waits for and how long it took. A step's result is kept: when one
fails and is retried, those before it do not run again.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import date

from pydantic import BaseModel

from durable import activity
from durable.dag import Dag, context, item, result

SALES = """\
day,region,article,pieces,price
2026-10-01,north,rake,4,19.90
2026-10-02,north,spade,2,34.50
2026-10-02,south,rake,7,19.90
2026-10-05,south,wheelbarrow,one,89.00
2026-10-08,west,spade,3,34.50
2026-10-12,west,rake,-2,19.90
2026-10-19,north,wheelbarrow,1,89.00
2026-10-32,south,spade,1,34.50
2026-10-30,south,wheelbarrow,2,89.00
2026-11-01,north,rake,9,19.90
"""
"""What the shops have sent. Three lines are no sales, and the last one is of another month."""


class Sale(BaseModel):
    day: date
    region: str
    article: str
    pieces: int
    cents: int


class Region(BaseModel):
    name: str
    sales: list[Sale]


class Checked(BaseModel):
    regions: list[Region]
    rejected: list[str]


class Turnover(BaseModel):
    region: str
    cents: int
    best_article: str


class Report(BaseModel):
    month: str
    cents: int
    regions: list[Turnover]
    rejected: int


@activity
def read_sales(month: str) -> list[dict[str, str]]:
    """The month's lines as they came."""
    rows = csv.DictReader(io.StringIO(SALES))
    return [row for row in rows if row["day"].startswith(month)]


@activity
def check_sales(rows: list[dict[str, str]]) -> Checked:
    """What cannot be right is set aside with its reason; it stops nobody."""
    by_region: dict[str, list[Sale]] = defaultdict(list)
    rejected = []
    for row in rows:
        try:
            sale = _sale(row)
        except ValueError as error:
            rejected.append(f"{row['day']} {row['article']}: {error}")
        else:
            by_region[sale.region].append(sale)
    regions = [Region(name=name, sales=sales) for name, sales in sorted(by_region.items())]
    return Checked(regions=regions, rejected=rejected)


def _sale(row: dict[str, str]) -> Sale:
    pieces = int(row["pieces"])
    if pieces < 1:
        raise ValueError(f"{pieces} pieces")
    cents = pieces * round(100 * float(row["price"]))
    day = date.fromisoformat(row["day"])
    return Sale(day=day, region=row["region"], article=row["article"], pieces=pieces, cents=cents)


@activity
def add_up_region(region: Region) -> Turnover:
    """One of these for each region, some at once."""
    by_article: dict[str, int] = defaultdict(int)
    for sale in region.sales:
        by_article[sale.article] += sale.cents
    best = max(sorted(by_article), key=lambda article: by_article[article])
    return Turnover(region=region.name, cents=sum(by_article.values()), best_article=best)


@activity
def write_report(month: str, turnovers: list[Turnover], rejected: list[str]) -> Report:
    total = sum(it.cents for it in turnovers)
    return Report(month=month, cents=total, regions=turnovers, rejected=len(rejected))


def sales_report(month: str) -> Dag:
    return (
        Dag("sales_report", context={"month": month})
        .add("read", read_sales, {"month": context("month")})
        .add("check", check_sales, {"rows": result("read")})
        .map("add_up", add_up_region, result("check", "regions"), {"region": item()}, max_concurrency=4)
        .add("report", write_report, {
            "month": context("month"), "turnovers": result("add_up"), "rejected": result("check", "rejected"),
        })
    )  # fmt: skip
