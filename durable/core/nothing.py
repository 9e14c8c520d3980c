"""Empty collections that all runs share: most runs never put anything into most of theirs, and with collections of its own a parked run would weigh half as much again.

Who adds takes one of its own first: `self.names = self.names or set()`. To add to one of these raises.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

NO_ITEMS: Final[Any] = ()
NO_NAMES: Final[Any] = frozenset()
NO_KEYS: Final[Any] = MappingProxyType({})
