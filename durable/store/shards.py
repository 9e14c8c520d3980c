"""Which shard a workflow id lives on: fixed for life, the same in Python and in SQL (`durable.shard_of`)."""

from __future__ import annotations

from hashlib import sha256

# 64 keys of which each falls on a hash shard of its own when a distributed Postgres takes the schema over.
SHARD_KEYS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 21, 22, 24, 27, 28, 31, 36, 37, 39, 41, 43, 44, 45,
    46, 48, 50, 52, 58, 59, 60, 62, 66, 70, 79, 80, 82, 83, 85, 88, 89, 92, 95, 96, 99, 101, 109, 112, 113, 136, 149,
    166, 168, 170, 172, 179, 351,
)  # fmt: skip


def shard_of(workflow_id: str) -> int:
    """Return the shard key of a workflow id: the first byte of its SHA-256 picks one of the 64."""
    return SHARD_KEYS[sha256(workflow_id.encode()).digest()[0] % 64]
