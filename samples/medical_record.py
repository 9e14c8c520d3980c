"""Values that the database must not be able to read: `durable-worker samples.medical_record`.

Everything that authors' code passes around is encrypted before it leaves the process, in workers and clients alike: arguments, results, signals, failures. Ids,
names and types stay readable, so that lists and `explain` work without the key. Keys are rotated by adding a new one and making it current; old values are
read with the key that they name. Needs `pip install "durable[crypto]"`.
"""

from __future__ import annotations

from pydantic import BaseModel

from durable import Encryption, Payloads, activity, workflow


class Finding(BaseModel):
    patient: str
    text: str


def payloads(keys: dict[str, bytes], current: str) -> Payloads:
    """For `Worker(payloads=...)` and `Client(payloads=...)`, or once for the process: `durable.use_payloads(...)`. Keys are 32 bytes, from a vault."""
    return Payloads([Encryption(keys, current=current)])


@activity
async def ask_specialist(finding: Finding) -> str:
    return f"{finding.patient}: seen, {finding.text}"


@workflow
async def review_finding(finding: Finding) -> str:
    return await ask_specialist(finding)
