"""A `Learner` at the other end of the wire: its calls as messages. `RemoteLearner` asks, `serve` answers.

A request is named after what is asked (kind, round, digest of the parameters), so asking the same again gets the same answer, also
after a crash of either side. Descriptions of the messages: ``docs/protocol.md``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import orjson
import structlog

from common.errors import FedfabError
from federation import progress
from federation.context import Context, Message
from federation.errors import FederationError, MemberError
from federation.rounds import Answer
from federation.wire import pack, unpack
from models.learner import Description, Learner, Moments, Params, Tally, Update
from models.schema import Schema

log = structlog.get_logger()

PROGRESS_S = 1.0
"""A member says at most this often that its work goes on."""
PAUSE_S = 2.0
"""Bytes that come after a longer pause belong to another transfer."""
_MARGIN_BYTES = 1 << 16
"""An update may differ from the model that was sent by its header."""


class RemoteLearner:
    """The member ``name`` as its aggregator sees it. Calls raise MemberError with the member's own code where it failed."""

    def __init__(self, context: Context, name: str) -> None:
        self.name = name
        self._context = context

    async def describe(self) -> Description:
        """See `Learner`."""
        meta = await self._told("describe", {})
        schemas = {cluster: Schema.model_validate(schema) for cluster, schema in meta["schemas"].items()}
        return Description(schemas, int(meta["samples"]), dict(meta["ends"]))

    async def moments(self) -> Moments:
        """See `Learner`."""
        return unpack((await self._told("moments", {}))["moments"])

    async def fit(self, round_: int, params: Params) -> Update:
        """See `Learner`."""
        answer = await self.answer(round_, params)
        update = answer.update
        return Update(await answer.open(), update.samples, update.train_loss, update.before, update.report)

    async def answer(self, round_: int, params: Params) -> Answer:
        """The update, whose parameters stay sealed on the disk until they are opened (`federation.rounds.Deferring`)."""
        flow = Flow()
        message = await self._ask("fit", {"round": round_}, params, flow)
        limit = sum(value.nbytes for value in params.values()) + _MARGIN_BYTES + 256 * len(params)
        meta = message.meta
        before = {end: unpack(tally) for end, tally in meta["before"].items()}
        update = Update({}, int(meta["samples"]), float(meta["train_loss"]), before, meta["report"])

        async def open_() -> Params:
            opened = await message.params(limit, progress.reporter())
            message.done_along()
            return opened or {}

        return Answer(update, open_, flow.seconds)

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        """See `Learner`."""
        meta = await self._told("evaluate", {}, params)
        return {end: unpack(tally) for end, tally in meta["tallies"].items()}

    async def finish(self, params: Params) -> Mapping[str, Any]:
        """See `Learner`."""
        result: Mapping[str, Any] = (await self._told("finish", {}, params))["result"]
        return result

    async def _told(self, kind: str, arguments: dict[str, Any], params: Params | None = None) -> dict[str, Any]:
        message = await self._ask(kind, arguments, params)
        message.done_along()
        return message.meta

    async def _ask(
        self, kind: str, arguments: dict[str, Any], params: Params | None = None, flow: Flow | None = None
    ) -> Message:
        """The member's reply; ``flow`` is told of its bytes. Cancelled, it takes the request back."""
        context = self._context
        digest = await context.digest(params) if params is not None else ""
        name = hashlib.sha256(orjson.dumps([kind, arguments, digest])).hexdigest()[:32]
        tick, flow = progress.reporter(), flow or Flow()

        def hear() -> None:
            flow.tick()
            tick()

        with context.listening(self.name, name) as said, context.hearing(self.name, hear):
            sent = await context.send(self.name, kind, {"request": name, **arguments}, params)
            try:
                while (message := await said.get()).header.kind != "reply":
                    progress.tick()
                    message.done_along()
            except asyncio.CancelledError:
                context.abandon(self.name, name, sent)
                raise
        if (error := message.meta.get("error")) is not None:
            message.done_along()
            raise MemberError(str(error["code"]), str(error["message"]), hint=str(error["hint"]))
        return message


class Flow:
    """For how long bytes have been on their way, told by ticks as they pass."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = -inf

    def tick(self) -> None:
        """Bytes pass; a longer pause than `PAUSE_S` before them was no transfer."""
        now = time.monotonic()
        if now - self._last <= PAUSE_S:
            self.seconds += now - self._last
        self._last = now


async def serve(context: Context, learner: Learner, *, aggregator: str) -> None:
    """The member's role in a task: answer the requests of ``aggregator``, one at a time, until it has answered ``finish``.

    Nobody else is answered: whoever could ask a member to train could take its update from it, alone and not averaged.
    A new request takes the place of one at work: its aggregator has gone on. An answer is durable before its request is forgotten,
    and parameters, sums and tallies are all it holds.
    """
    async with asyncio.TaskGroup() as tasks:
        over = asyncio.Event()
        work: _Work | None = None
        ending = tasks.create_task(over.wait())
        while not over.is_set():
            receiving = tasks.create_task(context.receive())
            await asyncio.wait([receiving, ending], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                receiving.cancel()
                break
            message = receiving.result()
            if message.header.sender != aggregator:
                log.error("request of a stranger dropped", kind=message.header.kind, sender=message.header.sender)
                await message.done()
            elif message.header.kind not in _CALLS and message.header.kind != "cancel":
                log.error("request of an unknown kind dropped", kind=message.header.kind, sender=message.header.sender)
                await message.done()
            elif work is not None and work.under_way and (work.message.request == message.request):
                if message.header.kind == "cancel":
                    work.stop()
                await message.done()
            elif message.header.kind == "cancel":
                await message.done()  # the request was answered, or never came
            else:
                if work is not None:
                    work.stop()
                work = _Work(message, tasks.create_task(_answer(context, learner, message, over)))


@dataclass(frozen=True, slots=True)
class _Work:
    message: Message
    task: asyncio.Task[None]

    @property
    def under_way(self) -> bool:
        return not self.task.done()

    def stop(self) -> None:
        """Nobody wants the answer. (Where the process ends instead, the request comes again.)"""
        if self.under_way:
            self.task.cancel()
            self.message.done_soon()


async def _answer(context: Context, learner: Learner, message: Message, over: asyncio.Event) -> None:
    kind = message.header.kind
    loop = asyncio.get_running_loop()
    told = loop.time()

    def tell() -> None:
        nonlocal told
        # one that would only wait behind others says nothing: a long cut must not fill the outbox with it
        if loop.time() - told >= PROGRESS_S and context.idle:
            told = loop.time()
            context.spawn(context.send(message.header.sender, "progress", {"request": message.request}))

    try:
        with progress.listening(tell):
            meta, params = await _CALLS[kind](learner, message)
    except Exception as error:
        log.exception("request failed", kind=kind)
        await context.answer(message, {"error": _described(error)}, keep=False)
        return
    await context.answer(message, meta, params)
    if kind == "finish":
        over.set()


_Reply = tuple[dict[str, Any], Params | None]


async def _describe(learner: Learner, _: Message) -> _Reply:
    found = await learner.describe()
    schemas = {cluster: schema.model_dump() for cluster, schema in found.schemas.items()}
    return {"schemas": schemas, "samples": found.samples, "ends": dict(found.ends)}, None


async def _moments(learner: Learner, _: Message) -> _Reply:
    return {"moments": pack(await learner.moments())}, None


async def _fit(learner: Learner, message: Message) -> _Reply:
    update = await learner.fit(int(message.meta["round"]), await _params(message))
    meta = {
        "samples": update.samples,
        "train_loss": update.train_loss,
        "before": {end: pack(tally) for end, tally in update.before.items()},
        "report": dict(update.report),
    }
    return meta, update.params


async def _evaluate(learner: Learner, message: Message) -> _Reply:
    tallies = await learner.evaluate(await _params(message))
    return {"tallies": {end: pack(tally) for end, tally in tallies.items()}}, None


async def _finish(learner: Learner, message: Message) -> _Reply:
    return {"result": dict(await learner.finish(await _params(message)))}, None


_CALLS: dict[str, Callable[[Learner, Message], Awaitable[_Reply]]] = {
    "describe": _describe,
    "moments": _moments,
    "fit": _fit,
    "evaluate": _evaluate,
    "finish": _finish,
}


async def _params(message: Message) -> Params:
    params = await message.params(progress=progress.reporter())
    if params is None:
        raise FederationError(
            "FF-FED-019", f"a request to {message.header.kind} came without parameters", hint="see docs/protocol.md"
        )
    return params


def _described(error: Exception) -> dict[str, str]:
    if isinstance(error, FedfabError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {
        "code": "FF-FED-032",
        "message": f"{type(error).__name__}: {error}",
        "hint": "the log of that member says more",
    }
