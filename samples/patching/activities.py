"""What the four releases call."""

from __future__ import annotations

from durable import activity


@activity
async def print_invoice(customer: str) -> str:
    return f"printed for {customer}"


@activity
async def mail_invoice(customer: str) -> str:
    return f"mailed to {customer}"
