"""From what asyncua decodes to samples: value, quality, time. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from asyncua import ua

from connectors.contract import Quality, Sample, Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUALITY = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)


def sample(tag: str, data: ua.DataValue | None, now: int) -> Sample:
    """The sample of ``tag`` for a data value received at ``now`` (ns).

    The quality is the top two bits of the status code. The time is the source's, else the server's, else ``now``. A bad value,
    NaN, or a value of a kind no tag can hold (an array, a structure) is BAD and None.
    """
    if data is None:
        return Sample(tag, None, Quality.BAD, now, now)
    status = data.StatusCode
    quality = Quality.GOOD if status is None else _QUALITY[status.value >> 30]
    time = nanoseconds(data.SourceTimestamp) or nanoseconds(data.ServerTimestamp) or now
    value = None if quality is Quality.BAD or data.Value is None else plain(data.Value.Value)
    if value is None:
        quality = Quality.BAD
    return Sample(tag, value, quality, time, now)


def nanoseconds(time: datetime | None) -> int:
    """Nanoseconds since the epoch; 0 where the server left the time out or sent OPC UA's null time, the year 1601."""
    if time is None:
        return 0
    since = time - _EPOCH
    return max(0, (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000)


def plain(value: object) -> Value:  # noqa: PLR0911  one line for each kind of value
    """The value as a tag can hold it; None for NaN, an array of more than one element, a structure."""
    if isinstance(value, float):
        return None if value != value else value  # noqa: PLR0124  NaN
    if isinstance(value, int | str):
        return value
    if isinstance(value, list) and len(value) == 1:  # an index range delivers one element as an array
        return plain(value[0])
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, ua.QualifiedName):
        return value.Name
    if isinstance(value, UUID):
        return str(value)
    return None
