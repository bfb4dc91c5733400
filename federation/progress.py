"""Signs of life on their way up: from an epoch in a worker to every deadline above it.

A deadline of a round is not how long a member may take, but how long it may show no progress. Whoever waits listens; whoever
computes ticks, and need not know who listens: the listeners travel in a context variable, through tasks and cluster levels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_listeners: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("federation.progress", default=())


def tick() -> None:
    """Say that the work awaited here goes on. Cheap; call it for every batch or epoch."""
    for listener in _listeners.get():
        listener()


def reporter() -> Callable[[], None]:
    """`tick` for those who listen here and now, to be called later from another task of the same event loop."""
    listeners = _listeners.get()

    def report() -> None:
        for listener in listeners:
            listener()

    return report


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """Have ``listener`` called for every tick of what is awaited inside, beside those who listen already."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


async def within(seconds: float, call: Callable[[], Awaitable[T]]) -> T:
    """The result of ``call()``. Raises TimeoutError where ``seconds`` pass without a tick from it."""
    loop = asyncio.get_running_loop()
    over = False
    async with asyncio.timeout(seconds) as timeout:

        def extend() -> None:
            if not over and not timeout.expired():
                timeout.reschedule(loop.time() + seconds)

        try:
            with listening(extend):
                return await call()
        finally:
            over = True
