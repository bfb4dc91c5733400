"""One reading of every tag of every source, all sources at once; a dead one costs the others nothing but its time-out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from connectors import registry
from connectors.contract import Connector, Sample, SourceConfig
from connectors.errors import ConnectorError


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source answered: samples, or why there are none."""

    source: SourceConfig
    samples: Sequence[Sample] = ()
    error: str | None = None


async def probe(
    sources: Sequence[SourceConfig],
    timeout_s: float,
    *,
    create: Callable[[SourceConfig], Connector] = lambda source: registry.get(source.type).create(source),
) -> list[Reading]:
    """Ask all sources that are enabled, in the order of the configuration."""
    return await asyncio.gather(*(_ask(source, timeout_s, create) for source in sources if source.enabled))


async def _ask(source: SourceConfig, timeout_s: float, create: Callable[[SourceConfig], Connector]) -> Reading:
    try:
        async with asyncio.timeout(timeout_s):
            return Reading(source, await create(source).probe())
    except TimeoutError:
        return Reading(source, error=f"no answer within {timeout_s:g} s")
    except ConnectorError as error:
        return Reading(source, error=str(error))
    except Exception as error:  # a driver's surprise is that source's problem only
        return Reading(source, error=repr(error))
