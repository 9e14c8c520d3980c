"""Sealing and opening texts: every step, every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable.encryption import Encryption
from durable.errors import InvalidOption, PayloadError
from durable.payload_codecs import (
    MARK,
    Compression,
    Payloads,
    PayloadStoreUnavailable,
    describe,
)
from durable.payload_stores import DirectoryStore

KEY = b"0" * 32
SECRET = Encryption({"k1": KEY}, current="k1")
BOTH = Payloads([Compression(at_least=100), SECRET])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_what_is_sealed_is_json_and_opens_as_it_was(value: object) -> None:
    text = json.dumps(value)
    sealed = BOTH.sealed(text)
    assert isinstance(json.loads(sealed)[MARK], list)
    assert BOTH.opened(sealed) == text


def test_encryption_gives_another_text_each_time() -> None:
    assert BOTH.sealed("1") != BOTH.sealed("1")


def test_without_codecs_nothing_changes() -> None:
    assert Payloads().sealed('{"a":1}') == '{"a":1}'
    assert not Payloads().active


def test_small_texts_are_not_compressed_and_large_ones_get_smaller() -> None:
    payloads = Payloads([Compression(at_least=100)])
    assert payloads.sealed('"a"') == '"a"'
    large = json.dumps("a" * 10_000)
    assert len(payloads.sealed(large)) < 200
    assert payloads.opened(payloads.sealed(large)) == large


def test_a_value_that_looks_sealed_is_not_taken_for_it() -> None:
    posing = '{"durable:encoded":["zlib"],"data":"x"}'
    payloads = Payloads([Compression(at_least=10_000)])
    sealed = payloads.sealed(posing)
    assert sealed != posing
    assert payloads.opened(sealed) == posing


def test_each_refusal_says_what_is_missing() -> None:
    sealed = BOTH.sealed('"x"')
    with pytest.raises(PayloadError, match="encrypted with key 'k1'.*no codec 'aes-gcm'"):
        Payloads().opened(sealed)
    with pytest.raises(PayloadError, match="key 'k1', which this process does not have"):
        Payloads([Encryption({"k2": KEY}, current="k2")]).opened(sealed)
    with pytest.raises(PayloadError, match="does not open with key 'k1'"):
        Payloads([Encryption({"k1": b"1" * 32}, current="k1")]).opened(sealed)
    changed = json.loads(sealed)
    changed["data"] = changed["data"][:-8] + "AAAAAAA="
    with pytest.raises(PayloadError, match="does not open"):
        BOTH.opened(json.dumps(changed))
    with pytest.raises(PayloadError, match="no payload store"):
        Payloads().opened(json.dumps({MARK: [], "ref": "0" * 64, "size": 7}))


def test_a_text_moved_under_another_key_s_id_does_not_open() -> None:
    same = Encryption({"k1": KEY, "k2": KEY}, current="k1")
    sealed = Payloads([same]).sealed('"x"').replace("aes-gcm:k1", "aes-gcm:k2")
    with pytest.raises(PayloadError, match="does not open"):
        Payloads([same]).opened(sealed)


def test_keys_rotate() -> None:
    old = Payloads([SECRET])
    new = Payloads([Encryption({"k1": KEY, "k2": b"2" * 16}, current="k2")])
    assert new.opened(old.sealed('"x"')) == '"x"'
    assert "aes-gcm:k2" in new.sealed('"x"')


def test_a_codec_that_is_no_longer_used_still_opens() -> None:
    later = Payloads(retired=[SECRET])
    assert later.opened(BOTH.sealed('"x"')) == '"x"'
    assert later.sealed('"x"') == '"x"'


@pytest.mark.parametrize(
    ("keys", "current", "said"),
    [
        ({"a": b"short"}, "a", "16, 24 or 32"),
        ({"a": KEY}, "b", "current"),
        ({"": KEY}, "", "printable"),
        ({"a\n": KEY}, "a\n", "printable"),
    ],
)
def test_impossible_keys_are_refused(keys: dict[str, bytes], current: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        Encryption(keys, current=current)


def test_keys_are_not_shown() -> None:
    assert KEY.decode() not in repr(SECRET)


def test_impossible_configurations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="name of its own"):
        Payloads([SECRET, SECRET])
    with pytest.raises(InvalidOption, match="threshold"):
        Payloads(store=DirectoryStore(tmp_path), threshold=0)


def test_failures_keep_their_class_and_lose_what_they_say() -> None:
    body = {"ref": 2, "digest": "abc", "failure": {"type": "m:E", "message": "secret", "cause": {}}}
    sealed = BOTH.sealed_body(body)
    assert "secret" not in json.dumps(sealed)
    assert (sealed["failure"]["type"], sealed["digest"], sealed["ref"]) == ("m:E", "", 2)
    assert BOTH.opened_body(sealed)["failure"] == body["failure"]
    assert Payloads([Compression()]).sealed_body(body) is body


def test_for_looking_an_envelope_becomes_its_content_or_says_what_is_missing() -> None:
    text = json.dumps(
        [{"attempt": 1, **BOTH.sealed_body({"failure": {"type": "m:E", "message": "x"}})}]
    )
    assert json.loads(BOTH.shown(text))[0]["failure"] == {"type": "m:E", "message": "x"}
    blind = json.loads(Payloads().shown(text))[0]["failure"]
    assert blind["type"] == "m:E"
    assert blind["message"].startswith("[encrypted with key 'k1', ")
    assert describe({MARK: ["zlib", "own:7"], "ref": "r", "size": 2048}) == (
        "compressed, encoded as own, in the payload store, 2,048 bytes"
    )


def test_a_directory_store_keeps_whole_files_by_their_hash(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "new")
    payloads = Payloads(store=store, threshold=10)
    text = json.dumps("x" * 100)
    sealed = payloads.sealed(text)
    assert payloads.sealed(text) == sealed
    assert payloads.opened(sealed) == text
    (path,) = (tmp_path / "new").glob("??/*")
    path.write_bytes(b"changed")
    with pytest.raises(PayloadError, match="was changed"):
        payloads.opened(sealed)
    path.unlink()
    with pytest.raises(PayloadError, match="does not have"):
        payloads.opened(sealed)
    with pytest.raises(InvalidOption):
        store.get("../../etc/passwd")


def test_a_store_that_fails_is_told_from_one_that_has_nothing(tmp_path: Path) -> None:
    class Broken(DirectoryStore):
        def get(self, key: str) -> bytes:
            raise TimeoutError("slow")

    payloads = Payloads(store=Broken(tmp_path), threshold=1)
    with pytest.raises(PayloadStoreUnavailable, match="slow"):
        payloads.opened(payloads.sealed('"xx"'))
