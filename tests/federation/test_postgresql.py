"""The aggregator's tables in PostgreSQL: the same promises, and a whole task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from federation.aggregate import aggregate
from federation.mailbox import Parcel
from tests.federation.conftest import MEMBERS, aggregating
from tests.federation.learners import Line
from tests.federation.test_mailbox import Envelope
from tests.federation.test_rounds_over_tls import SPEC, train
from tests.servers.databases import PASSWORD, READER, PostgreSql

pytestmark = pytest.mark.server("postgresql")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with PostgreSql() as server:
        server.execute(f"GRANT ALL ON SCHEMA public TO {READER}")
        yield make_url(server.url).set(password=PASSWORD).render_as_string(hide_password=False)


async def test_a_task_and_a_mailbox_in_postgresql(ca: Path, tmp_path: Path, database: str) -> None:
    async with aggregating(ca, tmp_path, database=database) as world:
        outcome, _ = await train(world, SPEC, dict.fromkeys(MEMBERS, "intl"))
        alone = await aggregate(SPEC, [Line(SPEC, name) for name in MEMBERS], name="cloud", layer="cloud")
        assert all((outcome.params[name] == value).all() for name, value in alone.params.items())

        mailbox, letter = world.hub.mailbox, Envelope(ca)
        assert await mailbox.fetch("gateway-a") == []
        sealed = letter("gateway-a", "twice")
        assert [await mailbox.put([Parcel(sealed)]), await mailbox.put([Parcel(sealed)])] == [1, 0]
        assert await mailbox.put([Parcel(letter("gateway-a", "twice")), Parcel(letter("gateway-a", "new"))]) == 1
        one, two = await mailbox.fetch("gateway-a")
        await mailbox.ack("gateway-a", [one.cursor])
        assert await mailbox.fetch("gateway-a") == [two]
    async with aggregating(ca, tmp_path, database=database) as world:  # after a restart
        assert await world.hub.mailbox.fetch("gateway-a") == [two]
        assert set(world.hub.participants) == set(MEMBERS)
