"""The providers agree with one another, on everything, and are chosen as documented."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trust import providers
from trust.errors import TrustError
from trust.providers import Buffer, Bulk, Sm2, gmssl
from trust.suite import providers as report

PAIRS = list(itertools.product(providers.SM2, repeat=2))


def _bulk(name: str) -> Bulk:
    return cast("Bulk", providers.load(name, "bulk"))


def _sm2(name: str) -> Sm2:
    return cast("Sm2", providers.load(name, "sm2"))


@pytest.mark.clause("9.4.1.3b")
@settings(max_examples=25, deadline=None)
@given(
    key=st.binary(min_size=16, max_size=16),
    nonce=st.binary(min_size=12, max_size=12),
    data=st.binary(max_size=300),
    aad=st.binary(max_size=40),
)
def test_bulk_providers_agree(key: bytes, nonce: bytes, data: bytes, aad: bytes) -> None:
    sealed, digests = set(), set()
    for name in providers.BULK:
        out = bytearray(len(data) + 16)
        _bulk(name).encrypt_into(key, nonce, data, aad, memoryview(out))
        sealed.add(bytes(out))
        hasher = _bulk(name).hasher()
        hasher.update(data)
        digests.add(hasher.digest())
    assert len(sealed) == len(digests) == 1
    for name in providers.BULK:
        back, one = bytearray(len(data)), next(iter(sealed))
        assert _bulk(name).decrypt_into(key, nonce, memoryview(one), aad, memoryview(back))
        assert back == data
        assert not _bulk(name).decrypt_into(key, nonce, one, aad + b"!", memoryview(back))


@pytest.mark.clause("9.4.1.3b")
@pytest.mark.parametrize(("one", "other"), PAIRS)
@settings(max_examples=4, deadline=None)
@given(message=st.binary(max_size=200), key=st.binary(min_size=1, max_size=64))
def test_sm2_providers_agree(one: str, other: str, message: bytes, key: bytes) -> None:
    signer, checker = _sm2(one), _sm2(other)
    pair, stranger = signer.generate(), checker.generate()
    signature = signer.sign(pair, message)
    assert checker.verify(pair.public, message, signature)
    assert not checker.verify(pair.public, message + b"!", signature)
    assert not checker.verify(stranger.public, message, signature)
    sealed = signer.encrypt(pair.public, key)
    assert checker.decrypt(pair, sealed) == key
    assert checker.decrypt(stranger, sealed) is None


@pytest.mark.parametrize("name", providers.SM2)
@settings(max_examples=15, deadline=None)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_sm2_decrypt_refuses_any_changed_byte(name: str, place: int, change: int) -> None:
    provider = _sm2(name)
    pair = provider.generate()
    sealed = bytearray(provider.encrypt(pair.public, b"0123456789abcdef"))
    sealed[place % len(sealed)] ^= change
    assert provider.decrypt(pair, bytes(sealed)) is None


@pytest.mark.parametrize("name", providers.SM2)
@given(junk=st.binary(max_size=80))
@settings(max_examples=30, deadline=None)
def test_sm2_takes_junk_for_what_it_is(name: str, junk: bytes) -> None:
    provider, pair = _sm2(name), _PAIR
    assert not provider.verify(pair.public, b"m", junk)
    assert provider.decrypt(pair, junk) is None


_PAIR = _sm2("libcrypto").generate()


@pytest.fixture
def chosen_anew() -> Iterator[Callable[[], None]]:
    """Providers are chosen again in this test, whenever it asks, and after it."""

    def again() -> None:
        for kept in (providers.bulk, providers.sm2, providers.load):
            kept.cache_clear()

    again()
    yield again
    again()


def test_the_fastest_is_chosen_unless_told(monkeypatch: pytest.MonkeyPatch, chosen_anew: Callable[[], None]) -> None:
    assert report()["SM3, SM4-GCM"].startswith("libgcrypt 1.")
    assert report()["SM2"].startswith("OpenSSL 3.")
    chosen_anew()
    monkeypatch.setenv("FEDFAB_SM_BULK", "cryptography")
    monkeypatch.setenv("FEDFAB_SM2", "gmssl")
    assert report()["SM3, SM4-GCM"].startswith("cryptography ")
    assert report()["SM2"].startswith("gmssl ")


@pytest.mark.usefixtures("chosen_anew")
def test_a_wrong_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDFAB_SM_BULK", "libgcript")
    with pytest.raises(TrustError, match="libgcrypt, cryptography, gmssl") as caught:
        providers.bulk()
    assert caught.value.code == "FF-TRUST-005"


@pytest.mark.usefixtures("chosen_anew")
def test_a_library_that_computes_wrongly_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(gmssl.Gmssl):
        def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
            out[:] = bytes(len(out))

    monkeypatch.setattr("trust.providers.libgcrypt.bulk", Broken)
    assert providers.bulk().about.startswith("cryptography ")


@pytest.mark.usefixtures("chosen_anew")
def test_none_at_all_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise OSError("libcrypto.so.3: no such file")

    monkeypatch.setenv("FEDFAB_SM2", "libcrypto")
    monkeypatch.setattr("trust.providers.libcrypto.sm2", absent)
    with pytest.raises(TrustError, match="no such file") as caught:
        providers.sm2()
    assert caught.value.code == "FF-TRUST-006"
