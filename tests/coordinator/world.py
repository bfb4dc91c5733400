"""A federation on loopback around a real coordinator: operators that call its API, plants whose members learn in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.client import Client
from coordinator.configfile import load_config
from coordinator.daemon import serving
from coordinator.resources import Event, Task
from federation.context import Message
from federation.node import Node
from federation.remote import serve
from models.learner import Learner, Params, Update
from models.spec import TaskSpec
from tests.conftest import free_port
from tests.federation.learners import Line
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName

Make = Callable[[TaskSpec, str], Learner]


@dataclass
class Cloud:
    """Where a coordinator keeps its things and listens; it runs inside `running`, as often as one likes."""

    ca: Path
    folder: Path
    suite: SuiteName = "intl"
    database: str = ""
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """Its configuration file, written when it is first asked for."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / "coordinator.toml"
        if path.exists():
            return path
        path.write_text(
            f"""
            [coordinator]
            name = "cloud"
            {f'database = "{self.database}"' if self.database else ""}
            [trust]
            identity = "{self.ca / "issued" / "cloud"}"
            [[listen]]
            address = "127.0.0.1:{self.port}"
            suite = "{self.suite}"
            """
        )
        return path

    def identity(self, name: str) -> tuple[Identity, TrustStore]:
        folder = self.ca / "issued" / name
        return Identity.load(folder, self.suite), TrustStore.load(folder, self.suite)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        """The coordinator at work; gives the client of the operator ann."""
        async with serving(load_config(self.config)), self.client() as client:
            yield client

    def client(self, name: str = "ann") -> Client:
        """The management API as ``name`` calls it."""
        return Client(self.url, *self.identity(name))

    @asynccontextmanager
    async def plants(self, *names: str, make: Make = Line) -> AsyncIterator[list[Plant]]:
        """Members of these names, connected."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.plant(name, make)) for name in names]

    @asynccontextmanager
    async def plant(self, name: str, make: Make = Line) -> AsyncIterator[Plant]:
        """One member, connected."""
        node = Node.member(*self.identity(name), self.url, self.folder / name)
        async with node, asyncio.TaskGroup() as group:
            plant = Plant(node, make, group)
            hearing = group.create_task(plant.hear())
            await node.connected.wait()
            yield plant
            for job in (hearing, *plant.jobs.values()):
                job.cancel()


class Plant:
    """A member that does what it is told, and remembers it."""

    def __init__(self, node: Node, make: Make, group: asyncio.TaskGroup) -> None:
        self.node, self.make = node, make
        self.heard: list[Message] = []
        self.jobs: dict[str, asyncio.Task[None]] = {}
        self._group = group
        self._news = asyncio.Event()

    async def hear(self) -> None:
        async for message in self.node.unclaimed():
            task = message.meta["task"]
            if message.header.kind == "task.start":
                spec = TaskSpec.model_validate(message.meta["spec"])
                context = self.node.context(task)
                self.jobs[task] = self._group.create_task(
                    serve(context, self.make(spec, self.node.name), aggregator=message.header.sender)
                )
            elif message.header.kind == "task.cancel":
                self.jobs[task].cancel()
            self.heard.append(message)
            await message.done()
            self._news.set()

    async def told(self, kind: str, count: int = 1) -> Message:
        """The message of this kind that is the ``count``-th; waits for it."""
        while len(found := [message for message in self.heard if message.header.kind == kind]) < count:
            self._news.clear()
            await self._news.wait()
        return found[count - 1]


class Gate(Line):
    """A learner that waits at a round until it is let through; all made from one `at` share the gate."""

    opened: asyncio.Event
    reached: asyncio.Event
    round: int

    @classmethod
    def at(cls, round_: int) -> type[Gate]:
        """A gate before this round."""
        return type("GateAt", (cls,), {"opened": asyncio.Event(), "reached": asyncio.Event(), "round": round_})

    async def fit(self, round_: int, params: Params) -> Update:
        if round_ >= self.round:
            self.reached.set()
            await self.opened.wait()
        return await super().fit(round_, params)


async def followed(client: Client, task: Task) -> list[Event]:
    """All events of a task, once it has ended."""
    return [event async for event in client.events(task.id)]


def rounds(events: list[Event]) -> list[int]:
    """Numbers of the rounds reported, the final evaluation left out."""
    return [int(str(event.body["round"])) for event in events if event.kind == "round" and not event.body["final"]]
