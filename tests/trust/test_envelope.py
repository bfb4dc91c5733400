"""A sealed message reaches the one it is for, unchanged, from the one who signed it, once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trust.envelope import Header, peek, seal, unseal
from trust.errors import TrustError
from trust.identity import Identity
from trust.keys import SuiteName

TEXT = st.text(max_size=60)
HEADERS = st.builds(
    Header,
    id=TEXT,
    task=TEXT,
    kind=TEXT,
    sender=TEXT,
    recipient=TEXT,
    sequence=st.integers(0, 2**64 - 1),
    time_ms=st.integers(0, 2**64 - 1),
    suite=st.sampled_from(["gm", "intl"]),
)


def _header(suite: SuiteName, sequence: int = 1, time_ms: int = 1_000_000) -> Header:
    return Header("id-1", "task-1", "fit", "gateway-a", "cloud", sequence, time_ms, suite)


@given(HEADERS)
def test_a_header_has_one_encoding(header: Header) -> None:
    assert Header.decode(header.encode()) == header


@given(st.binary(max_size=120))
def test_only_canonical_headers_are_read(data: bytes) -> None:
    try:
        header = Header.decode(data)
    except TrustError:
        return
    assert header.encode() == data


def test_a_text_too_long_is_an_error() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        dataclasses.replace(_header("gm"), task="x" * 256).encode()


@pytest.mark.clause("8.7.1")
@pytest.mark.clause("9.4.1.3b")
@pytest.mark.parametrize("size", [0, 1, 1000, 600_000])
def test_sealed_and_opened(gateway: Identity, cloud: Identity, size: int) -> None:
    body, header = bytes(range(251)) * (size // 251) + bytes(size % 251), _header(gateway.peer.suite)
    sealed = seal(gateway, cloud.peer, header, body)
    assert peek(sealed) == header
    assert unseal(cloud, gateway.peer, sealed) == (header, body)
    assert size < 100 or body[:64] not in sealed


@pytest.mark.clause("9.4.1.3b")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(gateway: Identity, cloud: Identity, place: int, change: int) -> None:
    sealed = bytearray(seal(gateway, cloud.peer, _header(gateway.peer.suite), b"a body of some bytes"))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(TrustError):
        unseal(cloud, gateway.peer, bytes(sealed))


def test_cut_anywhere_it_is_refused(gateway: Identity, cloud: Identity) -> None:
    sealed = seal(gateway, cloud.peer, _header(gateway.peer.suite), b"body")
    for end in range(len(sealed)):
        with pytest.raises(TrustError):
            unseal(cloud, gateway.peer, sealed[:end])
    with pytest.raises(TrustError):
        unseal(cloud, gateway.peer, sealed + b"x")


def test_only_the_recipient_opens_it(ca: Path, gateway: Identity, cloud: Identity) -> None:
    other = Identity.load(ca / "issued" / "gateway-b", gateway.peer.suite)
    sealed = seal(gateway, cloud.peer, _header(gateway.peer.suite), b"body")
    with pytest.raises(TrustError) as caught:
        unseal(other, gateway.peer, sealed)
    assert caught.value.code == "FF-TRUST-031"
    impostor = dataclasses.replace(other, peer=dataclasses.replace(other.peer, name="cloud"))
    with pytest.raises(TrustError) as caught:
        unseal(impostor, gateway.peer, sealed)
    assert caught.value.code == "FF-TRUST-012"


def test_only_the_sender_can_have_signed_it(ca: Path, gateway: Identity, cloud: Identity) -> None:
    other = Identity.load(ca / "issued" / "gateway-b", gateway.peer.suite)
    impostor = dataclasses.replace(other, peer=dataclasses.replace(other.peer, name="gateway-a"))
    forged = seal(impostor, cloud.peer, _header(gateway.peer.suite), b"body")
    with pytest.raises(TrustError) as caught:
        unseal(cloud, gateway.peer, forged)
    assert caught.value.code == "FF-TRUST-011"


def test_the_header_must_be_of_those_who_hold_the_keys(gateway: Identity, cloud: Identity) -> None:
    header = dataclasses.replace(_header(gateway.peer.suite), sender="somebody")
    with pytest.raises(ValueError, match="somebody"):
        seal(gateway, cloud.peer, header, b"")


def test_suites_do_not_mix(ca: Path) -> None:
    gm, intl = (Identity.load(ca / "issued" / "gateway-a", name) for name in ("gm", "intl"))  # type: ignore[arg-type]
    cloud = Identity.load(ca / "issued" / "cloud", "intl")
    sealed = seal(intl, cloud.peer, _header("intl"), b"")
    with pytest.raises(TrustError) as caught:
        unseal(cloud, gm.peer, sealed)
    assert caught.value.code == "FF-TRUST-032"


def test_another_version_is_named(cloud: Identity, gateway: Identity) -> None:
    sealed = seal(gateway, cloud.peer, _header(gateway.peer.suite), b"")
    with pytest.raises(TrustError, match="version 1") as caught:
        peek(b"FFE\x02" + sealed[4:])
    assert caught.value.code == "FF-TRUST-033"
