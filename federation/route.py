"""Settings of a member's way to its aggregator: through which proxy, how patiently, in which pieces; how much may wait meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Route:
    """Settings of a `federation.client.Link`. What can be found out on the way (pieces, polls) adapts itself below these."""

    proxy: str | None = None
    """An HTTP proxy to go through by CONNECT: ``http://[user@]host:port``."""
    proxy_password: str | None = field(default=None, repr=False)
    poll_s: float = 30.0
    """How long a question for messages waits at the aggregator; below what anything on the way allows a silent line."""
    connect_s: float = 10.0
    silence_s: float = 60.0
    """A line on which nothing moves for so long, though something should, is given up."""
    piece_bytes: int = 8 << 20
    """Blobs travel in pieces of at most this size."""


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """How much may wait for an aggregator that is away: messages, and bytes with their blobs."""

    messages: int = 10_000
    bytes: int = 8 << 30
