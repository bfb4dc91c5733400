"""Signs of life on their way up: from an epoch in a worker to every deadline above it.

A deadline of a round is not how long a member may take, but how long it may show no progress. Whoever waits listens; whoever
computes ticks, and need not know who listens: the listeners travel in a context variable, through tasks and cluster levels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

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


async def within(
    seconds: float, call: Callable[[], Coroutine[Any, Any, T]], give_up: Callable[[float], bool] = lambda _: True
) -> T:
    """The result of ``call()``. Raises TimeoutError where ``seconds`` pass without a tick from it and ``give_up`` agrees.

    ``give_up`` is told for how many seconds there was none; where it says no, it is asked again after as many seconds.
    """
    loop = asyncio.get_running_loop()
    heard = asked = loop.time()

    def hear() -> None:
        nonlocal heard, asked
        heard = asked = loop.time()

    with listening(hear):
        work = asyncio.create_task(call())
    try:
        while not work.done():
            rest = asked + seconds - loop.time()
            if rest > 0:
                await asyncio.wait([work], timeout=rest)
            elif give_up(loop.time() - heard):
                raise TimeoutError
            else:
                asked = loop.time()
        return work.result()
    finally:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
