"""Where a program goes on after a crash: the state and parameters of the last finished round, whole or not at all (9.4.3l)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson

from common.files import write_atomic
from federation.errors import FederationError
from models.errors import ModelError
from models.learner import Params
from models.parameters import from_bytes, to_bytes

_LENGTH_BYTES = 8


class Checkpoint:
    """One file in ``folder``: length of the state, the state as JSON, the parameters as safetensors. Replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "checkpoint"

    async def save(self, state: dict[str, Any], params: Params) -> None:
        """Replace the checkpoint; it is on disk when this returns. ``state`` must be JSON-serialisable."""
        await asyncio.to_thread(self._save, orjson.dumps(state), params)

    async def load(self) -> tuple[dict[str, Any], Params] | None:
        """State and parameters, or None where there is no checkpoint. Raises FederationError FF-FED-040 for a broken one."""
        return await asyncio.to_thread(self._load)

    async def clear(self) -> None:
        """Forget the checkpoint."""
        await asyncio.to_thread(self._path.unlink, True)

    def _save(self, state: bytes, params: Params) -> None:
        # padded, so that the tensors behind it are aligned
        state = state.ljust(-(-len(state) // _LENGTH_BYTES) * _LENGTH_BYTES)
        write_atomic(
            self._path, b"".join([len(state).to_bytes(_LENGTH_BYTES, "big"), state, to_bytes(params)]), mode=0o600
        )

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
