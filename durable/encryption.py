"""Encryption of payloads with AES-GCM. Needs the extra `durable[crypto]`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from durable.errors import InvalidOption, PayloadError

_NONCE = 12


class Encryption:
    """AES-GCM with named keys: `Encryption({"2026-01": key}, current="2026-01")`.

    `keys` maps a key's id to 16, 24 or 32 bytes. What is written takes the key `current`; what is read takes the key that its envelope names. To
    rotate: give every process the new key beside the old, then make it current, and drop the old key when no run has anything left of it. The id stands
    readable beside each payload. A text that was changed, or moved under another key's id, does not open.

    Raises InvalidOption for impossible keys, or when the package `cryptography` is not installed.
    """

    name = "aes-gcm"
    conceals = True

    def __init__(self, keys: Mapping[str, bytes], *, current: str) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise InvalidOption(
                "encryption needs the package cryptography: pip install 'durable[crypto]'"
            ) from error
        if current not in keys:
            raise InvalidOption(
                f"current is {current!r}; give the id of one of keys: {sorted(keys)}"
            )
        for key_id, key in keys.items():
            if not key_id or len(key_id) > 100 or not key_id.isprintable():
                raise InvalidOption(f"a key's id is {key_id!r}; give 1 to 100 printable characters")
            if len(key) not in (16, 24, 32):
                raise InvalidOption(f"key {key_id!r} has {len(key)} bytes; give 16, 24 or 32")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = current

    def encode(self, data: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(_NONCE)
        sealed = self._ciphers[self.current].encrypt(nonce, data, self.current.encode())
        return self.current, nonce + sealed

    def decode(self, data: bytes, parameter: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(parameter)
        if cipher is None:
            raise PayloadError(
                "payload",
                f"it is encrypted with key {parameter!r}, which this process does not have",
                f"Add the key to Encryption(keys=...), which has {sorted(self._ciphers)}.",
            )
        try:
            return cipher.decrypt(data[:_NONCE], data[_NONCE:], parameter.encode())
        except InvalidTag as error:
            raise PayloadError(
                "payload",
                f"it does not open with key {parameter!r}: it was changed, or the key is another one",
                "Give this process the key that it was written with.",
            ) from error

    def __repr__(self) -> str:
        return f"<Encryption with keys {sorted(self._ciphers)}, current {self.current!r}>"
