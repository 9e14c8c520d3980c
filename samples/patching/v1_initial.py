"""Release 1: an invoice is printed."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import workflow
from samples.patching.activities import print_invoice


@workflow(name="invoice_customer")
async def invoice_customer(customer: str) -> str:
    await durable.sleep(timedelta(days=1))
    return await print_invoice(customer)
