"""Both suites keep what their interface promises."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC
from hypothesis import given, settings
from hypothesis import strategies as st

from trust.errors import TrustError
from trust.keys import PublicKey, SuiteName
from trust.suite import suite

NAMES: list[SuiteName] = ["gm", "intl"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=500), aad=st.binary(max_size=20), place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_changed_bit_of_a_ciphertext_is_refused(
    name: SuiteName, data: bytes, aad: bytes, place: int, bit: int
) -> None:
    algorithms = suite(name)
    key, nonce = bytes(range(algorithms.key_bytes)), bytes(12)
    sealed = algorithms.encrypt(key, nonce, data, aad)
    assert len(sealed) == len(data) + 16
    assert algorithms.decrypt(key, nonce, sealed, aad) == data
    broken = bytearray(sealed)
    broken[place % len(sealed)] ^= 1 << bit
    for arguments in ((key, nonce, broken, aad), (key, nonce, sealed, aad + b"x"), (key, b"x" * 12, sealed, aad)):
        with pytest.raises(TrustError) as caught:
            algorithms.decrypt(*arguments)
        assert caught.value.code == "FF-TRUST-010"


def test_a_ciphertext_shorter_than_its_tag_is_refused(suite_name: SuiteName) -> None:
    algorithms = suite(suite_name)
    with pytest.raises(TrustError):
        algorithms.decrypt(bytes(algorithms.key_bytes), bytes(12), b"short", b"")


@pytest.mark.clause("9.4.1.2e")
def test_signatures_are_of_one_key_over_one_message(suite_name: SuiteName) -> None:
    algorithms = suite(suite_name)
    ours, other = algorithms.generate_key(), algorithms.generate_key()
    signature = algorithms.sign(ours, b"message")
    algorithms.verify(ours.public, b"message", signature)
    for public, message in ((other.public, b"message"), (ours.public, b"massage")):
        with pytest.raises(TrustError) as caught:
            algorithms.verify(public, message, signature)
        assert caught.value.code == "FF-TRUST-011"


def test_a_wrapped_key_opens_for_its_recipient_only(suite_name: SuiteName) -> None:
    algorithms = suite(suite_name)
    ours, other = algorithms.generate_key(), algorithms.generate_key()
    key = bytes(range(algorithms.key_bytes))
    wrapped = algorithms.wrap(ours.public, key)
    assert algorithms.unwrap(ours, wrapped) == key
    assert wrapped != algorithms.wrap(ours.public, key)
    for private, given_ in ((other, wrapped), (ours, wrapped[:-1]), (ours, b""), (ours, bytes(120))):
        with pytest.raises(TrustError) as caught:
            algorithms.unwrap(private, given_)
        assert caught.value.code == "FF-TRUST-012"


@given(key=st.binary(max_size=130), data=st.binary(max_size=200))
def test_hmac_agrees_with_openssl(key: bytes, data: bytes) -> None:
    for name, algorithm in (("gm", hashes.SM3()), ("intl", hashes.SHA256())):
        reference = HMAC(key or b"\0", algorithm)
        reference.update(data)
        assert suite(name).hmac(key, data) == reference.finalize()  # type: ignore[arg-type]


def test_read_only_and_typed_buffers_are_taken_as_they_are(suite_name: SuiteName) -> None:
    import numpy

    algorithms, array = suite(suite_name), numpy.arange(64, dtype=numpy.float32)
    array.flags.writeable = False
    key = bytes(algorithms.key_bytes)
    assert algorithms.digest(memoryview(array)) == algorithms.digest(array.tobytes())
    assert algorithms.encrypt(key, bytes(12), memoryview(array), b"") == algorithms.encrypt(
        key, bytes(12), array.tobytes(), b""
    )


def test_secrets_are_not_printed(suite_name: SuiteName) -> None:
    private = suite(suite_name).generate_key()
    assert str(private.scalar) not in repr(private)
    assert private.scalar.hex() not in repr(private)


def test_a_key_of_the_other_suite_is_told_apart() -> None:
    with pytest.raises(TrustError, match="SM2") as caught:
        PublicKey.from_spki("gm", suite("intl").generate_key().public.spki)
    assert caught.value.code == "FF-TRUST-001"
