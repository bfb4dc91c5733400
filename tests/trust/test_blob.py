"""Chunks come back only whole, in their place and from their blob; anyone without the manifest reads nothing."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trust.blob import BlobOpener, BlobSealer, Manifest, chunk_count, open_blob, seal_blob
from trust.errors import TrustError
from trust.keys import SuiteName
from trust.suite import TAG_BYTES, suite

CHUNK = 64
NAMES: list[SuiteName] = ["gm", "intl"]


@pytest.mark.clause("8.7.1")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=5 * CHUNK))
def test_a_blob_comes_back(name: SuiteName, data: bytes) -> None:
    sealed, manifest = seal_blob(suite(name), data, CHUNK)
    assert len(sealed) == manifest.sealed_size
    assert open_blob(Manifest.from_json(json.loads(json.dumps(manifest.to_json()))), sealed) == data
    assert len(data) < 8 or data not in bytes(sealed)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 4 * CHUNK), place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(name: SuiteName, size: int, place: int, change: int) -> None:
    sealed, manifest = seal_blob(suite(name), bytes(size), CHUNK)
    sealed[place % len(sealed)] ^= change
    with pytest.raises(TrustError):
        open_blob(manifest, sealed)


def test_chunks_keep_their_place_and_their_blob(suite_name: SuiteName) -> None:
    data = bytes(3 * CHUNK)
    (one, manifest), (other, _) = seal_blob(suite(suite_name), data, CHUNK), seal_blob(suite(suite_name), data, CHUNK)
    step = CHUNK + TAG_BYTES
    opener = BlobOpener(manifest)
    assert opener.chunk(1, one[step : 2 * step]) == bytes(CHUNK)
    for index, chunk in ((0, one[step : 2 * step]), (1, other[step : 2 * step]), (3, one[:step]), (0, one[: step - 1])):
        with pytest.raises(TrustError) as caught:
            opener.chunk(index, chunk)
        assert caught.value.code == "FF-TRUST-013"
    for whole in (one[:-1], one[:-step], one + b"x", b""):
        with pytest.raises(TrustError) as caught:
            open_blob(manifest, whole)
        assert caught.value.code == "FF-TRUST-014"


def test_place_and_size_are_authenticated_apart_from_the_digests(suite_name: SuiteName) -> None:
    """Someone who could forge the manifest's digests still cannot move a chunk or shorten the blob."""
    sealed, manifest = seal_blob(suite(suite_name), bytes(2 * CHUNK), CHUNK)
    first, second = sealed[: CHUNK + TAG_BYTES], sealed[CHUNK + TAG_BYTES :]
    swapped = dataclasses.replace(manifest, digests=manifest.digests[::-1])
    with pytest.raises(TrustError) as caught:
        open_blob(swapped, second + first)
    assert caught.value.code == "FF-TRUST-010"
    shortened = dataclasses.replace(manifest, size=CHUNK, digests=manifest.digests[:1])
    with pytest.raises(TrustError) as caught:
        open_blob(shortened, first)
    assert caught.value.code == "FF-TRUST-010"


def test_a_recipient_who_holds_the_key_cannot_change_a_broadcast(suite_name: SuiteName) -> None:
    """GCM alone lets a holder of the key make another text; the digests in the signed manifest do not."""
    algorithms = suite(suite_name)
    _, manifest = seal_blob(algorithms, b"the model", CHUNK)
    forged = algorithms.encrypt(
        manifest.key, bytes(12), b"the muddl", bytes(7) + b"\0" + bytes(7) + b"\x09" + bytes(7) + b"\x40"
    )
    with pytest.raises(TrustError) as caught:
        open_blob(manifest, forged)
    assert caught.value.code == "FF-TRUST-013"
    own = dataclasses.replace(manifest, digests=(algorithms.digest(forged),))
    assert open_blob(own, forged) == b"the muddl"


def test_every_blob_has_its_own_key(suite_name: SuiteName) -> None:
    (one, first), (other, second) = (seal_blob(suite(suite_name), b"same") for _ in range(2))
    assert first.key != second.key
    assert one != other
    assert first.key.hex() not in repr(first)
    assert str(first.key) not in repr(first)


def test_chunks_may_be_sealed_in_any_order_but_once(suite_name: SuiteName) -> None:
    data = bytes(range(200))
    sealer = BlobSealer(suite(suite_name), len(data), CHUNK)
    assert sealer.count == chunk_count(len(data), CHUNK) == 4
    with pytest.raises(ValueError, match="chunk 0 is not sealed yet"):
        sealer.manifest()
    chunks = {index: sealer.chunk(index, data[index * CHUNK : (index + 1) * CHUNK]) for index in (2, 0, 3, 1)}
    assert open_blob(sealer.manifest(), b"".join(chunks[index] for index in range(4))) == data
    with pytest.raises(ValueError, match="once"):
        sealer.chunk(1, bytes(CHUNK))
    with pytest.raises(ValueError, match="expected 64 bytes"):
        BlobSealer(suite(suite_name), 200, CHUNK).chunk(0, b"short")


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "rot13"},
        {"size": 10**9},
        {"size": -1},
        {"chunk_bytes": 0},
        {"key": "not base64!"},
        {"key": "AAAA"},
        {"digests": "AAAA"},
        {"digests": 7},
    ],
)
def test_a_malformed_manifest_is_refused(suite_name: SuiteName, change: dict[str, object]) -> None:
    _, manifest = seal_blob(suite(suite_name), b"data")
    with pytest.raises(TrustError) as caught:
        Manifest.from_json(manifest.to_json() | change)
    assert caught.value.code == "FF-TRUST-014"
    with pytest.raises(TrustError):
        Manifest.from_json(None)
