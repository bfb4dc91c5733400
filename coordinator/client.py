"""The management API from the operator's side, over mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from common.tasklog import Level
from coordinator.errors import CallRefusedError, CoordinatorError
from coordinator.operations import PREFIX, Problem
from coordinator.resources import (
    ENDED,
    Event,
    EventList,
    Model,
    ModelList,
    Participant,
    ParticipantList,
    Task,
    TaskList,
    Version,
)
from models.spec import TaskSpec
from trust.identity import Identity, TrustStore
from trust.tls import client_context

_WAIT_S = 30.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=_WAIT_S + 30.0)

Answer = TypeVar("Answer", bound=BaseModel)


class Client:
    """Calls one coordinator at ``url`` (https://host:port). Every call may raise CoordinatorError.

    FF-COORD-040: it cannot be reached, or is not the one we trust. FF-COORD-041: what answers is no coordinator. A refusal is raised
    as CallRefusedError with the code, message and hint of the coordinator.
    """

    def __init__(self, url: str, identity: Identity, trust: TrustStore) -> None:
        self._url = url.rstrip("/")
        self._ssl = client_context(identity, trust)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._ssl), timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def version(self) -> Version:
        """Which coordinator it is."""
        return await self._get(Version, "version")

    async def participants(self) -> list[Participant]:
        """Everyone enrolled."""
        return (await self._get(ParticipantList, "participants")).items

    async def submit(self, spec: TaskSpec) -> Task:
        """Submit a task."""
        return await self._post(Task, "tasks", body=spec)

    async def tasks(self, state: str | None = None, limit: int = 100) -> list[Task]:
        """Tasks, latest first."""
        return (await self._get(TaskList, "tasks", limit=str(limit), **({"state": state} if state else {}))).items

    async def task(self, task: str) -> Task:
        """One task."""
        return await self._get(Task, "tasks", task)

    async def cancel(self, task: str) -> Task:
        """Cancel a task."""
        return await self._post(Task, "tasks", task, "cancel")

    async def resume(self, task: str) -> Task:
        """Go on with a task that failed."""
        return await self._post(Task, "tasks", task, "resume")

    async def events(self, task: str, *, follow: bool = True) -> AsyncIterator[Event]:
        """Everything that happened in the task, and happens from now on until it ends; without ``follow`` what happened until now."""
        after, ended, wait = 0, False, str(_WAIT_S if follow else 0)
        while not ended:
            page = await self._get(EventList, "tasks", task, "events", after=str(after), wait=wait)
            if not (page.items or follow):
                return
            for event in page.items:
                after = event.number
                yield event
                ended = event.kind == "state" and event.body["state"] in ENDED

    async def log(self, task: str, level: Level = "debug") -> bytes:
        """What the coordinator logged of a task, as JSON lines."""
        return await self._call("GET", ("tasks", task, "log"), query={"level": level})

    async def models(self, name: str | None = None) -> list[Model]:
        """Versions of all models, or of one."""
        return (await self._get(ModelList, "models", **({"name": name} if name else {}))).items

    async def model(self, name: str, version: int) -> Model:
        """One version."""
        return await self._get(Model, "models", name, "versions", str(version))

    async def params(self, name: str, version: int) -> bytes:
        """Parameters of a version, as safetensors."""
        return await self._call("GET", ("models", name, "versions", str(version), "params"))

    async def promote(self, name: str, version: int) -> Model:
        """Put a version in use."""
        return await self._post(Model, "models", name, "versions", str(version), "promote")

    async def roll_back(self, name: str) -> Model:
        """Put the version before back in use."""
        return await self._post(Model, "models", name, "rollback")

    async def _get(self, answer: type[Answer], *path: str, **query: str) -> Answer:
        return self._parsed(answer, await self._call("GET", path, query=query))

    async def _post(self, answer: type[Answer], *path: str, body: BaseModel | None = None) -> Answer:
        return self._parsed(answer, await self._call("POST", path, body=body))

    async def _call(
        self, method: str, path: Sequence[str], *, query: Mapping[str, str] | None = None, body: BaseModel | None = None
    ) -> bytes:
        url = self._url + PREFIX + "".join(f"/{quote(part, safe='')}" for part in path)
        data = None if body is None else body.model_dump_json().encode()
        headers = None if body is None else {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                method, URL(url, encoded=True), params=query, data=data, headers=headers
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CoordinatorError(
                "FF-COORD-040",
                f"no answer from {self._url}: {error}",
                hint="does the coordinator run, is the address right, and is --suite the suite of that address?",
            ) from error
        if response.ok:
            return content
        problem = self._parsed(Problem, content)
        raise CallRefusedError(problem.code, problem.detail, hint=problem.hint)

    def _parsed(self, answer: type[Answer], content: bytes) -> Answer:
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise CoordinatorError(
                "FF-COORD-041",
                f"{self._url} did not answer as a coordinator of this version would: {content[:80]!r}",
                hint="check address and port; `fedfab version` and the coordinator's should agree",
            ) from error
