"""What happens to payloads between the code and the database: compression, encryption, and large ones kept elsewhere.

The problem. Arguments, results, signals, failures and heartbeat details may be secret, or large. But the deterministic core must see plain values: a
replay compares the arguments that the code gives with those that history holds (C13), and encryption gives another text each time.

The solution. Everything here works at the very edge, on finished JSON text: a client or worker *seals* text on its way into the database, and *opens*
what comes out. The core, the digests and the comparison never see a sealed text. What is sealed stays JSON, an envelope:

    {"durable:encoded": ["zlib", "aes-gcm:2026-01"], "data": "<base64>"}
    {"durable:encoded": ["aes-gcm:2026-01"], "ref": "<sha256>", "size": 3145728}      its bytes are in the payload store

Codecs are applied in the order of the list and undone in the opposite order. The label of each names what is needed to undo it (the key's id), so
keys can be rotated: new texts take the current key, old ones keep theirs as long as it is known somewhere. Ids, names, types, attributes, memo, actor,
headers and details are not sealed: they are what operators find runs by.

What cannot be opened is never taken for a value. In a worker it parks the run (C8), or puts the attempt back for a worker that has the key; a client's
`result()` raises PayloadError; for looking (history, describe, the command line) a placeholder says what is missing.

Failures keep their class and place; message, arguments, traceback and causes are sealed, if any codec conceals. The digest of an activity's arguments is
left out then: it would give short arguments away, and replay compares the arguments themselves.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Protocol

from durable import payload
from durable.errors import InvalidOption, PayloadError

MARK: Final = "durable:encoded"
UNREADABLE: Final = "durable:unreadable"
PREFIX: Final = '{"durable:encoded":'
_CONCEALED: Final = "[sealed]"


class PayloadCodec(Protocol):
    """One reversible step. `name` stands in histories for ever; `conceals` says whether it hides the content."""

    @property
    def name(self) -> str: ...
    @property
    def conceals(self) -> bool: ...
    def encode(self, data: bytes) -> tuple[str, bytes] | None:
        """What undoing needs to know (a key's id; may be empty) and the new bytes; None: leave these as they are."""
        ...

    def decode(self, data: bytes, parameter: str) -> bytes:
        """The bytes before. Raises PayloadError when it cannot."""
        ...


class PayloadStore(Protocol):
    """Where large payloads are kept, by the SHA-256 of their bytes. Called in threads; may block. Any error counts as "cannot be reached"."""

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes; they may be there already, and are then as good as new (`delete_unused`)."""
        ...

    def get(self, key: str) -> bytes:
        """The bytes. Raises KeyError if there are none."""
        ...

    def delete_unused(self, used: frozenset[str], older_than_s: float) -> int:
        """Delete what is not in `used` and was last put longer ago than that. Returns how many."""
        ...


@dataclass(frozen=True)
class Compression:
    """zlib for texts of at least `at_least` bytes, where it makes them smaller."""

    at_least: int = 1024
    level: int = 6
    name: str = field(default="zlib", init=False)
    conceals: bool = field(default=False, init=False)

    def encode(self, data: bytes) -> tuple[str, bytes] | None:
        if len(data) < self.at_least:
            return None
        smaller = zlib.compress(data, self.level)
        return ("", smaller) if len(smaller) < len(data) else None

    def decode(self, data: bytes, parameter: str) -> bytes:  # noqa: ARG002
        return zlib.decompress(data)


@dataclass(frozen=True)
class Payloads:
    """What a client or worker does with payloads. `Payloads()` seals nothing.

    codecs: applied in order, compression before encryption. store: takes texts of more than `threshold` bytes (as they are after the codecs); with
    it, payloads may have up to `max_bytes` bytes. retired: codecs that only open what older code has sealed.
    """

    codecs: Sequence[PayloadCodec] = ()
    store: PayloadStore | None = None
    threshold: int = 256 * 1024
    max_bytes: int = 256 * 1024 * 1024
    retired: Sequence[PayloadCodec] = ()

    def __post_init__(self) -> None:
        names = [codec.name for codec in (*self.codecs, *self.retired)]
        if len(set(names)) != len(names) or any(":" in name or not name for name in names):
            raise InvalidOption(
                f"codecs are named {names}; give each a name of its own without ':'"
            )
        if self.threshold < 1 or self.max_bytes < self.threshold:
            raise InvalidOption("threshold must be at least 1, and max_bytes no smaller than it")
        if self.store is not None:
            payload.allow_up_to(self.max_bytes)

    @property
    def active(self) -> bool:
        return bool(self.codecs) or self.store is not None

    @property
    def conceals(self) -> bool:
        return any(codec.conceals for codec in self.codecs)

    # -- texts ----------------------------------------------------------------------------------------------------------

    def sealed(self, text: str) -> str:
        """The text on its way into the database. Raises PayloadStoreUnavailable."""
        if not self.active:
            return text
        labels, data = self._encoded(text.encode())
        if self.store is not None and len(data) > self.threshold:
            key = sha256(data).hexdigest()
            try:
                self.store.put(key, data)
            except Exception as error:
                raise PayloadStoreUnavailable(
                    f"the payload store takes nothing: {error}"
                ) from error
            return json.dumps({MARK: labels, "ref": key, "size": len(data)})
        if not labels and not text.startswith(PREFIX):
            return text
        return json.dumps({MARK: labels, "data": base64.b64encode(data).decode()})

    def _encoded(self, data: bytes) -> tuple[list[str], bytes]:
        labels = []
        for codec in self.codecs:
            if (done := codec.encode(data)) is not None:
                parameter, data = done
                labels.append(f"{codec.name}:{parameter}" if parameter else codec.name)
        return labels, data

    def opened(self, text: str) -> str:
        """The text as it was sealed; a plain text as it is. Raises PayloadError, PayloadStoreUnavailable."""
        if not text.startswith(PREFIX):
            return text
        envelope = json.loads(text)
        return self._opened(envelope) if _is_envelope(envelope) else text

    def _opened(self, envelope: dict[str, Any]) -> str:
        labels: list[str] = envelope[MARK]
        steps = [(self._codec(label, envelope), label.partition(":")[2]) for label in labels]
        data = self._fetched(envelope) if "ref" in envelope else base64.b64decode(envelope["data"])
        for codec, parameter in reversed(steps):
            try:
                data = codec.decode(data, parameter)
            except PayloadError:
                raise
            except Exception as error:
                raise _unreadable(envelope, f"{codec.name} cannot undo it: {error}") from error
        return data.decode()

    def _codec(self, label: str, envelope: dict[str, Any]) -> PayloadCodec:
        name = label.partition(":")[0]
        for codec in (*self.codecs, *self.retired):
            if codec.name == name:
                return codec
        raise _unreadable(envelope, f"this process has no codec {name!r}")

    def _fetched(self, envelope: dict[str, Any]) -> bytes:
        key = envelope["ref"]
        if self.store is None:
            raise _unreadable(envelope, "this process has no payload store")
        try:
            data = self.store.get(key)
        except KeyError as error:
            raise _unreadable(envelope, f"the payload store does not have {key}") from error
        except Exception as error:
            raise PayloadStoreUnavailable(f"the payload store does not answer: {error}") from error
        if sha256(data).hexdigest() != key:
            raise _unreadable(envelope, f"what the payload store has as {key} was changed")
        return data

    # -- failures ---------------------------------------------------------------------------------------------------------

    def sealed_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """An event's body (or a job's error, or a review) without what it would give away; the same object if there is nothing."""
        if not self.conceals:
            return body
        changed = body
        if isinstance(failure := body.get("failure"), dict) and MARK not in failure:
            labels, data = self._encoded(json.dumps(failure).encode())
            if labels:
                sealed = {MARK: labels, "data": base64.b64encode(data).decode()}
                changed = {
                    **body,
                    "failure": {"type": failure.get("type"), "message": _CONCEALED, **sealed},
                }
        if body.get("digest"):
            changed = {**changed, "digest": ""}
        return changed

    def opened_body(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body with its failure as it was sealed. Raises PayloadError."""
        failure = body.get("failure")
        if isinstance(failure, dict) and MARK in failure:
            return {**body, "failure": json.loads(self._opened(failure))}
        return body

    # -- for looking --------------------------------------------------------------------------------------------------------

    def shown(self, text: str) -> str:
        """JSON text with every envelope in it opened, or replaced by a placeholder; for people and for tools."""
        return json.dumps(self._shown(json.loads(text))) if f'"{MARK}"' in text else text

    def _shown(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._shown(member) for member in value]
        if not isinstance(value, dict):
            return value
        if not _is_envelope(value):
            return {key: self._shown(member) for key, member in value.items()}
        try:
            return json.loads(self._opened(value))
        except (PayloadError, PayloadStoreUnavailable) as error:
            said = {UNREADABLE: describe(value), "why": str(error)}
            return (
                said
                if "type" not in value
                else {"type": value["type"], "message": f"[{describe(value)}]"}
            )


class PayloadStoreUnavailable(Exception):
    """The store of large payloads does not answer. It may do so later; nothing was written."""


def describe(envelope: dict[str, Any]) -> str:
    """An envelope in words: `encrypted with key '2026-01', 96 bytes`."""
    said = [
        _WORDS.get(label.partition(":")[0], "encoded as {0}").format(*label.partition(":")[::2])
        for label in envelope[MARK]
    ]
    size = envelope.get("size") or len(envelope.get("data", "")) * 3 // 4
    where = ["in the payload store"] if "ref" in envelope else []
    return ", ".join([*said, *where, f"{size:,} bytes"])


_WORDS = {"zlib": "compressed", "aes-gcm": "encrypted with key {1!r}"}


def _is_envelope(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get(MARK), list)
        and ("data" in value or "ref" in value)
    )


def _unreadable(envelope: dict[str, Any], why: str) -> PayloadError:
    return PayloadError(
        "payload",
        f"it is {describe(envelope)}, and cannot be read here ({why})",
        "Give this process the codecs, keys and payload store that it was written with: durable.use_payloads(...).",
    )


def unreadable_placeholder(text: str | None) -> str | None:
    """Why a text that was opened for looking is no value; None: it is one."""
    if text is None or not text.startswith(f'{{"{UNREADABLE}":'):
        return None
    found = json.loads(text)
    return str(found.get("why") or found[UNREADABLE])


# -- the process's own ----------------------------------------------------------------------------------------------------

_default = Payloads()


def use_payloads(
    *codecs: PayloadCodec,
    store: PayloadStore | None = None,
    threshold: int = 256 * 1024,
    max_bytes: int = 256 * 1024 * 1024,
    retired: Sequence[PayloadCodec] = (),
) -> Payloads:
    """What clients and workers of this process do with payloads where they are not told otherwise (`payloads=`). See `Payloads`.

    Call it in the module that defines the workflows: workers and the command line (`--app`) import that.
    """
    global _default
    _default = Payloads(codecs, store, threshold, max_bytes, retired)
    return _default


def default_payloads() -> Payloads:
    return _default
