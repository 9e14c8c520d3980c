"""Release 3, when no run of release 1 is open any more: the old branch is gone, the mark in the histories is still expected."""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import workflow
from samples.patching.activities import mail_invoice


@workflow(name="invoice_customer")
async def invoice_customer(customer: str) -> str:
    durable.deprecate_patch("mail-invoices")
    await durable.sleep(timedelta(days=1))
    return await mail_invoice(customer)
