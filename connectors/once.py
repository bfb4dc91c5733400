"""First failure and recovery are logged once each, not at every cycle."""

from __future__ import annotations

import logging


class Once:
    """Remembers what has failed, by key: a tag, a unit, a read."""

    def __init__(self, log: logging.Logger, source: str) -> None:
        self._log = log
        self._source = source
        self._failed: dict[object, str] = {}

    def failed(self, key: object, what: str) -> None:
        """Say ``what`` at the first failure of ``key``, and again only after a recovery."""
        if key not in self._failed:
            self._failed[key] = what
            self._log.warning("%s: %s", self._source, what)

    def recovered(self, key: object) -> None:
        """``key`` works; say so if it had failed."""
        if self._failed and (what := self._failed.pop(key, None)) is not None:
            self._log.info("%s: over: %s", self._source, what)
