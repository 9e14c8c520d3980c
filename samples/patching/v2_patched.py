"""Release 2: new runs mail it; runs that were open go on as they began."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import workflow
from samples.patching.activities import mail_invoice, print_invoice


@workflow(name="invoice_customer")
async def invoice_customer(customer: str) -> str:
    mailed = durable.patched("mail-invoices")
    await durable.sleep(timedelta(days=1))
    return await (mail_invoice(customer) if mailed else print_invoice(customer))
