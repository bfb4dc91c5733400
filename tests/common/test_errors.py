"""What a person reads when something is wrong."""

from __future__ import annotations

from common.errors import FedfabError


def test_an_error_shows_code_message_and_what_to_do() -> None:
    error = FedfabError("FF-X-001", "expected a, got b", hint="write a")
    assert str(error) == "FF-X-001: expected a, got b\n  what to do: write a"
    assert str(FedfabError("FF-X-001", "expected a, got b")) == "FF-X-001: expected a, got b"
