"""Writes orders.json, the input of the demo: `python -m samples.checkout.generate_orders`. The same file every time.

Most items are stocked for everybody who wants them. Three are scarce: who gets one is decided by the race, so an order
with a scarce item may end either way. `may_end` lists the legal ends of each order's run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

SEED = 20_261_121
HERE = Path(__file__).parent

ITEMS = (
    ("tea-01", "Darjeeling first flush, 100 g", 1_290),
    ("tea-02", "Grüner Sencha, 100 g", 990),
    ("tea-03", "烏龍茶 Oolong, 50 g", 1_850),
    ("pot-01", "Cast iron teapot, 0.8 l", 6_400),
    ("pot-02", "Чайник фарфоровый, 1 l", 4_950),
    ("cup-01", "Porcelain cup", 1_175),
    ("cup-02", "Raku-Schale", 3_800),
    ("tin-01", "Tin with lid", 640),
    ("set-01", "Gift set", 8_999),
    ("rare-01", "Pu-erh of 1998, 357 g", 48_000),
    ("rare-02", "天目茶碗, one of a kind", 125_000),
    ("rare-03", "Silver needle, spring auction", 23_500),
)
SCARCE = {"rare-01": 9, "rare-02": 2, "rare-03": 5}
NAMES = (
    "Ada Lovelace", "Grace Hopper", "José Ñandú", "Zoë Müller", "Łukasz Żak", "李小龍", "さくら 田中", "Анна Каренина",
    "Νίκος Παπαδόπουλος", "أحمد الخطيب", "שרה לוי", "Siobhán O'Brien", "Đặng Thị Hà", "Björk Guðmundsdóttir", "Nguyễn Văn A",
    "Renée d'Arc", 'Robert "Bobby" Tables', "Ümit Öz", "प्रिया शर्मा", "Emoji 🫖 Fan", "Jean-Luc P.", "Mary\tTabbed", "O; drop table",
)  # fmt: skip
HABITS = (
    # what the customer does, how many of them
    ("pays", 158),
    ("never pays", 18),
    ("pays the wrong amount", 16),
    ("has a declined card", 14),
    ("cancels before paying", 12),
    ("cancels after paying", 14),
    ("orders too much", 12),
)
ENDS = {
    "pays": ["completed"],
    "cancels before paying": ["cancelled"],
    "cancels after paying": ["cancelled", "completed"],  # the cancellation may come too late
}
PRICES = {sku: price for sku, _, price in ITEMS}


def main() -> None:
    orders = list(numbered_orders(Random(SEED)))  # noqa: S311 - no secret
    items = [
        {"sku": sku, "name": name, "price_cents": price, "stock": stock_of(sku, orders)}
        for sku, name, price in ITEMS
    ]
    text = f'{{"items": [\n{one_a_line(items)}\n],\n"orders": [\n{one_a_line(orders)}\n]}}\n'
    (HERE / "orders.json").write_text(text, encoding="utf-8")


def one_a_line(rows: list[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def numbered_orders(random: Random) -> Iterator[dict[str, Any]]:
    habits = [habit for habit, count in HABITS for _ in range(count)]
    random.shuffle(habits)
    for number, habit in enumerate(habits, start=1):
        yield case(f"order-{number:04}", habit, random)


def case(order_id: str, habit: str, random: Random) -> dict[str, Any]:
    """One order, and what its customer will do about it."""
    lines = some_lines(random)
    if habit == "orders too much":
        lines[0]["quantity"] = 5_000
    total = sum(PRICES[line["sku"]] * line["quantity"] for line in lines)
    name = random.choice(NAMES)
    card = "4000-0000-0000-0002" if habit == "has a declined card" else "4242-4242-4242-4242"
    order = {"id": order_id, "customer": name, "card": card, "lines": lines, "total_cents": total}
    return {
        "order": order,
        "habit": habit,
        "pays_cents": payment(habit, total, random),
        "may_end": ends(habit, lines),
    }


def some_lines(random: Random) -> list[dict[str, Any]]:
    skus = random.sample(
        [sku for sku, _, _ in ITEMS if sku not in SCARCE], random.choice((1, 1, 1, 2, 2, 3, 5))
    )
    if random.random() < 0.15:
        skus.append(random.choice(sorted(SCARCE)))
    return [
        {"sku": sku, "quantity": 1 if sku in SCARCE else random.choice((1, 1, 1, 2, 3, 6, 24))}
        for sku in skus
    ]


def payment(habit: str, total: int, random: Random) -> int | None:
    if habit in ("never pays", "cancels before paying"):
        return None
    return total - random.choice((1, 100, -250)) if habit == "pays the wrong amount" else total


def ends(habit: str, lines: list[dict[str, Any]]) -> list[str]:
    legal = list(ENDS.get(habit, ["failed"]))
    if "failed" not in legal and any(line["sku"] in SCARCE for line in lines):
        legal.append("failed")
    return legal


def stock_of(sku: str, orders: list[dict[str, Any]]) -> int:
    """Enough for all but those who order too much; little of what is scarce."""
    wanted: int = sum(
        line["quantity"]
        for case in orders
        if case["habit"] != "orders too much"
        for line in case["order"]["lines"]
        if line["sku"] == sku
    )
    return SCARCE.get(sku, wanted)


if __name__ == "__main__":
    main()
