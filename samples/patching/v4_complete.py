"""Release 4, when no run of release 2 is open any more: nothing reminds of the change."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import workflow
from samples.patching.activities import mail_invoice


@workflow(name="invoice_customer")
async def invoice_customer(customer: str) -> str:
    await durable.sleep(timedelta(days=1))
    return await mail_invoice(customer)
