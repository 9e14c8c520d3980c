from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def own_garbage() -> Iterator[None]:
    """A full collection in the test looks at all that the test has made, and not at the half a million objects that were there before."""
    gc.freeze()
    yield
    gc.unfreeze()
