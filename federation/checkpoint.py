"""Where a program goes on after a crash: the state and parameters of the last finished round, whole or not at all (9.4.3l).

What is no longer needed is overwritten, not just forgotten: it holds parameters that are nobody's result (9.4.1.1f).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from common.files import erase, write_atomic
from federation.errors import FederationError
from models.errors import ModelError
from models.learner import Params
from models.parameters import from_bytes, to_bytes

_LENGTH_BYTES = 8


class Checkpoint:
    """One file in ``folder``: length of the state, the state as JSON, the parameters as safetensors. Replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "checkpoint"
        self._past = folder / "checkpoint.past"

    async def save(self, state: dict[str, Any], params: Params) -> None:
        """Replace the checkpoint; it is on disk when this returns. ``state`` must be JSON-serialisable."""
        await asyncio.to_thread(self._save, orjson.dumps(state), params)

    async def load(self) -> tuple[dict[str, Any], Params] | None:
        """State and parameters, or None where there is no checkpoint. Raises FederationError FF-FED-040 for a broken one."""
        return await asyncio.to_thread(self._load)

    async def clear(self) -> None:
        """Forget the checkpoint: it is overwritten and removed."""
        await asyncio.to_thread(self._clear)

    def _save(self, state: bytes, params: Params) -> None:
        # padded, so that the tensors behind it are aligned
        self._retire()
        state = state.ljust(-(-len(state) // _LENGTH_BYTES) * _LENGTH_BYTES)
        write_atomic(
            self._path, b"".join([len(state).to_bytes(_LENGTH_BYTES, "big"), state, to_bytes(params)]), mode=0o600
        )
        erase(self._past)

    def _retire(self) -> None:
        """Give the checkpoint a second name, under which it can be overwritten once the new one stands in its place."""
        with suppress(FileNotFoundError):
            if self._past.samefile(self._path):  # a crash came before the new one: this is the one to keep
                return
        erase(self._past)
        with suppress(FileNotFoundError):
            self._past.hardlink_to(self._path)

    def _clear(self) -> None:
        erase(self._past)
        erase(self._path)

    def _load(self) -> tuple[dict[str, Any], Params] | None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
        try:
            state: dict[str, Any] = orjson.loads(data[_LENGTH_BYTES:end])
            return state, from_bytes(memoryview(data)[end:])
        except (orjson.JSONDecodeError, ModelError) as error:
            raise FederationError(
                "FF-FED-040",
                f"{self._path} is not a checkpoint: {error}",
                hint="remove the file; the task then starts again from its first round",
            ) from error
