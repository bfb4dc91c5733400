"""Refuses a sealed message that was taken before, or that is too old or from the future: sequence and time of its header.

At-least-once delivery repeats messages honestly; those are told by their id and answered from the store before the guard is asked.
What the guard has seen belongs into the same transaction as what the message did: export it there, import it after a restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from trust.envelope import Header
from trust.errors import TrustError

_WINDOW = 1024  # sequences behind the newest that may still come, as in RFC 4303 §3.4.3


class ReplayGuard:
    """One for each recipient. Sequences of a sender may overtake each other within a window; none is taken twice.

    Args:
        max_age_s: how old a message may be; a plant that was cut off sends its outbox when it is back.
        max_skew_s: how far the sender's clock may run ahead of ours.
        clock: seconds since 1970.
    """

    def __init__(
        self, *, max_age_s: float = 7 * 86400, max_skew_s: float = 300, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_age_s, self._max_skew_s, self._clock = max_age_s, max_skew_s, clock
        self._seen: dict[str, tuple[int, int]] = {}  # sender → newest sequence, bits of those behind it

    def check(self, header: Header) -> None:
        """Take the message, or raise TrustError. Call it after `unseal`: before, the header may be anyone's."""
        age_s = self._clock() - header.time_ms / 1000
        if not -self._max_skew_s <= age_s <= self._max_age_s:
            raise TrustError(
                "FF-TRUST-034",
                f"message {header.id} from {header.sender} is {age_s:.0f} s old by our clock; taken are "
                f"{-self._max_skew_s:.0f} to {self._max_age_s:.0f} s",
                hint="check the clocks of both machines (timedatectl)",
            )
        newest, bits = self._seen.get(header.sender, (-1, 0))
        behind = newest - header.sequence
        if behind >= _WINDOW or (behind >= 0 and bits >> behind & 1):
            raise TrustError(
                "FF-TRUST-035",
                f"message {header.id} from {header.sender} repeats sequence {header.sequence} (newest taken: {newest})",
                hint="someone replays old messages, or the sender lost its outbox: give it a new certificate and name",
            )
        if behind < 0:
            shifted = bits << -behind if -behind < _WINDOW else 0
            self._seen[header.sender] = header.sequence, (shifted | 1) & ((1 << _WINDOW) - 1)
        else:
            self._seen[header.sender] = newest, bits | 1 << behind

    def export(self) -> dict[str, list[str]]:
        """What was seen, as plain data for a durable store: {sender: [newest, bits in hex]}."""
        return {sender: [str(newest), f"{bits:x}"] for sender, (newest, bits) in self._seen.items()}

    def load(self, state: Mapping[str, list[str]]) -> None:
        """Take back what `export` gave."""
        self._seen = {sender: (int(newest), int(bits, 16)) for sender, (newest, bits) in state.items()}
