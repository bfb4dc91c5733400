"""What one participant must remember over a crash: sequence numbers, which messages it handled, what it answered.

Memory holds it all for reading; the functions that write take a connection, so that they join the transaction of what they belong to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from federation import tables
from federation.database import Database
from trust.envelope import Header
from trust.replay import ReplayGuard


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer given to a request: the body of the message, and the blob it names."""

    task: str
    sender: str
    kind: str
    request: str
    content: bytes
    blob: str | None


class Journal:
    """One for each `Node`, in the database of its outbox or of its hub."""

    def __init__(self, database: Database) -> None:
        with database.engine.connect() as connection:
            sent = connection.execute(select(tables.sent)).all()
            taken = connection.execute(select(tables.taken)).all()
            answers = connection.execute(select(tables.answers)).all()
        self._sent: dict[str, int] = {row.recipient: row.sequence for row in sent}
        self._taken = {row.sender: ReplayGuard(json.loads(row.state)) for row in taken}
        self._answers = {(row.task, row.sender, row.kind): Stored(*row) for row in answers}

    def sequence(self, recipient: str, floor: int = 0) -> int:
        """The next number towards ``recipient``, greater than all before and than ``floor``, what it says it has met of us.

        The first is the clock's, so that a new outbox does not repeat an old one's.
        """
        last = self._sent.get(recipient, time.time_ns() // 1000)
        self._sent[recipient] = max(last, floor) + 1
        return self._sent[recipient]

    def meet(self, header: Header, now_s: float) -> None:
        """A message came. Raises TrustError where it was handled before, or a stranger's first is too old or from the future."""
        self._taken.setdefault(header.sender, ReplayGuard()).meet(header, now_s)

    def answered(self, task: str, sender: str, kind: str, request: str) -> Stored | None:
        """The answer given to this very request, if it was the last of its kind."""
        stored = self._answers.get((task, sender, kind))
        return stored if stored is not None and stored.request == request else None

    def take(self, header: Header) -> str:
        """A message that was met is handled. Returns the state to save with what it did."""
        guard = self._taken[header.sender]
        guard.take(header)
        return json.dumps(guard.state)

    def store(self, answer: Stored) -> None:
        """The answer is given; it takes the place of the last one of its kind."""
        self._answers[answer.task, answer.sender, answer.kind] = answer

    def forget(self, task: str) -> None:
        """The task is over: its answers will not be asked for again."""
        self._answers = {key: answer for key, answer in self._answers.items() if key[0] != task}


def save_sent(connection: Connection, sequences: Iterable[tuple[str, int]]) -> None:
    """Save the last sequence numbers used."""
    for recipient, sequence in dict(sequences).items():
        tables.upsert(connection, tables.sent, {"recipient": recipient, "sequence": sequence})


def save_taken(connection: Connection, sender: str, state: str) -> None:
    """Save what `Journal.take` returned."""
    tables.upsert(connection, tables.taken, {"sender": sender, "state": state})


def save_answer(connection: Connection, answer: Stored) -> list[str]:
    """Save an answer; returns the blob of the one it replaces."""
    columns = tables.answers.c
    replaced = columns.task == answer.task, columns.sender == answer.sender, columns.kind == answer.kind
    blobs = list(connection.scalars(select(columns.blob).where(*replaced, columns.blob.is_not(None))))
    tables.upsert(connection, tables.answers, {name: getattr(answer, name) for name in answer.__slots__})
    return blobs


def delete_answers(connection: Connection, task: str) -> list[str]:
    """Delete all answers of a task; returns their blobs."""
    gone = delete(tables.answers).where(tables.answers.c.task == task).returning(tables.answers.c.blob)
    return [blob for blob in connection.scalars(gone) if blob is not None]


def newest_met(connection: Connection, senders: Collection[str] | None = None) -> dict[str, int]:
    """The greatest sequence met of each sender, or of these, as far as it is durable."""
    query = select(tables.taken.c.sender, tables.taken.c.state)
    if senders is not None:
        query = query.where(tables.taken.c.sender.in_(senders))
    return {sender: ReplayGuard(json.loads(state)).newest for sender, state in connection.execute(query)}
