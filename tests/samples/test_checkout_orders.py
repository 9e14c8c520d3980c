"""The input file: what it promises, and that the committed file is what the committed script writes."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from samples.checkout import cases, generate_orders


def test_the_file_is_what_the_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_orders, "HERE", tmp_path)
    generate_orders.main()
    assert (tmp_path / "orders.json").read_bytes() == cases.FILE.read_bytes()


def test_there_are_enough_orders_and_they_vary() -> None:
    given = cases.load()
    orders = [case.order for case in given.orders]
    assert len({order.id for order in orders}) == len(orders) >= 200
    assert (
        len({tuple((line.sku, line.quantity) for line in order.lines) for order in orders}) >= 150
    )
    assert {len(order.lines) for order in orders} >= {1, 2, 3, 5}
    assert sum(not order.customer.isascii() for order in orders) > 20
    habits = Counter(case.habit for case in given.orders)
    assert len(habits) == 7
    assert min(habits.values()) >= 10


def test_every_total_is_the_sum_of_its_lines() -> None:
    given = cases.load()
    prices = {item["sku"]: item["price_cents"] for item in given.items}
    for case in given.orders:
        assert case.order.total_cents == sum(
            prices[line.sku] * line.quantity for line in case.order.lines
        )


def test_some_orders_exceed_the_stock_and_some_race_for_it() -> None:
    given = cases.load()
    stock = {item["sku"]: item["stock"] for item in given.items}
    wanted: Counter[str] = Counter()
    for case in given.orders:
        hopeless = any(line.quantity > stock[line.sku] for line in case.order.lines)
        assert hopeless == (case.habit == "orders too much")
        wanted.update({line.sku: 0 if hopeless else line.quantity for line in case.order.lines})
    assert {sku for sku in stock if wanted[sku] > stock[sku]} == set(generate_orders.SCARCE)


def test_only_those_who_never_pay_get_the_short_deadline() -> None:
    for case in cases.load(payment_deadline=timedelta(seconds=4)).orders:
        short = case.order.payment_deadline == timedelta(seconds=4)
        assert short == (case.habit == "never pays")
        assert short or case.order.payment_deadline == timedelta(days=3)
