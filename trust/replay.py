"""Each message of a sender once, however late it comes (protocol: ``sequence`` in the header)."""

from __future__ import annotations

from collections.abc import Mapping

from trust.envelope import Header
from trust.errors import TrustError

MAX_AGE_S = 7 * 86400.0
MAX_SKEW_S = 300.0


class ReplayGuard:
    """What one recipient has met of one sender. Exact, and no clock decides once the sender is known.

    Messages of a sender come in the order of their sequences (outbox and mailbox are queues), so one that is behind the newest
    was met before: either it is still open, that is, not handled yet, and comes again honestly; or it is a repetition. Only for a
    sender of whom nothing is known the time must be near: a relay must not feed old messages to a recipient that lost its memory.

    `state` belongs into the same transaction as what a message did.
    """

    def __init__(self, state: Mapping[str, object] | None = None) -> None:
        """Empty, or as another guard's ``state`` says. Raises ValueError for anything else."""
        self._newest, self._open = -1, set[int]()
        match state:
            case {"newest": int(newest), "open": list(left)}:
                self._newest, self._open = newest, {int(sequence) for sequence in left}
            case None:
                pass
            case _:
                raise ValueError(f"expected the state of a replay guard, got {state!r}")

    @property
    def newest(self) -> int:
        """The greatest sequence met; -1 where nothing was."""
        return self._newest

    def meet(self, header: Header, now_s: float) -> None:
        """A message came. Call it after `unseal`: before, the header may be anyone's. ``now_s``: seconds since 1970.

        Raises TrustError FF-TRUST-035 for one that was handled, FF-TRUST-034 for the first ever where it is older than seven days
        or more than five minutes from the future.
        """
        if header.sequence in self._open:
            return
        if header.sequence <= self._newest:
            raise TrustError(
                "FF-TRUST-035",
                f"message {header.id} from {header.sender} repeats sequence {header.sequence} (newest met: {self._newest})",
                hint="an honest repetition needs nothing; if the sender is not heard at all, see docs/errors/trust.md",
            )
        if self._newest < 0:
            _require_near(header, now_s)
        self._newest = header.sequence
        self._open.add(header.sequence)

    def take(self, header: Header) -> None:
        """A message that was met is handled: it is not taken again."""
        self._open.discard(header.sequence)

    @property
    def state(self) -> dict[str, object]:
        """What was met, as plain data for a durable store."""
        return {"newest": self._newest, "open": sorted(self._open)}


def _require_near(header: Header, now_s: float) -> None:
    age_s = now_s - header.time_ms / 1000
    if not -MAX_SKEW_S <= age_s <= MAX_AGE_S:
        raise TrustError(
            "FF-TRUST-034",
            f"message {header.id}, the first from {header.sender}, is {age_s:.0f} s old by our clock; taken are "
            f"{-MAX_SKEW_S:.0f} to {MAX_AGE_S:.0f} s",
            hint="check the clocks of both machines (timedatectl)",
        )
