"""The SQL connector against real MariaDB, PostgreSQL and SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from connectors.contract import Connector, Quality, Sample
from connectors.errors import ConnectorConfigError, ConnectorError
from connectors.registry import get
from tests.servers.certificates import make_certificate
from tests.servers.databases import PASSWORD, DatabaseServer, MariaDb, PostgreSql

pytestmark = [pytest.mark.clause("9.1.2")]

MYSQL = pytest.mark.clause("9.2.2")
"""MySQL is the one database of the clause's list that these tests show."""


SERVERS = pytest.mark.parametrize(
    "name",
    [
        pytest.param("postgresql", marks=pytest.mark.server("postgresql")),
        pytest.param("mariadb", marks=[pytest.mark.server("mariadb"), MYSQL]),
    ],
)


class Sqlite:
    """A file, in the shape of the servers."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "plant.db"
        self.url = f"sqlite:///{self.file}"

    def execute(self, *statements: str) -> None:
        connection = sqlite3.connect(self.file)
        with connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()


Server = DatabaseServer | Sqlite


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDb]:
    with MariaDb() as server:
        yield server


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSql]:
    with PostgreSql() as server:
        yield server


@pytest.fixture
def sqlite(tmp_path: Path) -> Sqlite:
    return Sqlite(tmp_path)


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.server("postgresql")),
        pytest.param("mariadb", marks=[pytest.mark.server("mariadb"), MYSQL]),
    ]
)
def server(request: pytest.FixtureRequest) -> Server:
    running: Server = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def password(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    return {"file": str(file)}


Make = Callable[..., Connector]


@pytest.fixture
def make(password: dict[str, str]) -> Make:
    def create(server: Server, **options: Any) -> Connector:
        kind = get("sql")
        section: dict[str, Any] = {"name": "mes", "url": server.url, "cursor": "id", "every_s": 0.02, **options}
        if not isinstance(server, Sqlite):
            section.setdefault("password", password)
        section.setdefault("tag", [{"name": "temperature", "column": "temp"}])
        return kind.create(kind.config.model_validate(section))

    return create


def table(server: Server, name: str, columns: str = "id BIGINT, temp DOUBLE PRECISION", *rows: str) -> None:
    server.execute(f"DROP TABLE IF EXISTS {name}", f"CREATE TABLE {name} ({columns})")
    if rows:
        server.execute(f"INSERT INTO {name} VALUES {', '.join(rows)}")


async def start_and_read(reader: Connector) -> None:
    await reader.start(None)
    await reader.read()


async def read_all(reader: Connector, count: int) -> list[Sample]:
    samples: list[Sample] = []
    async with asyncio.timeout(20):
        while len(samples) < count:
            batch = await reader.read()
            samples.extend(batch.samples)
            await batch.acknowledge()
    return samples


async def test_rows_come_once_in_order_over_restarts(server: Server, make: Make) -> None:
    table(server, "readings", "id BIGINT, temp DOUBLE PRECISION", *(f"({i}, {i / 2})" for i in range(1, 251)))
    reader = make(server, table="readings", batch=100)
    await reader.start(None)
    first = await reader.read()
    await first.acknowledge()
    assert [sample.value for sample in first.samples] == [i / 2 for i in range(1, 101)]
    await reader.read()  # not acknowledged: must come again
    await reader.stop()
    await reader.start(first.cursor)
    rest = await read_all(reader, 150)
    assert [sample.value for sample in rest] == [i / 2 for i in range(101, 251)]
    waiting = asyncio.create_task(reader.read())
    server.execute(f"INSERT INTO readings VALUES ({2**40}, -1.5)")
    late = await waiting
    assert [sample.value for sample in late.samples] == [-1.5]
    await late.acknowledge()
    await reader.stop()
    await reader.start(late.cursor)  # a cursor beyond 32 bits comes back whole
    server.execute(f"INSERT INTO readings VALUES ({2**40 + 1}, -2.5)")
    assert [sample.value for sample in await read_all(reader, 1)] == [-2.5]
    await reader.stop()


async def test_rows_of_one_cursor_value_are_never_skipped(server: Server, make: Make) -> None:
    rows = [f"({cursor}, {place})" for place, cursor in enumerate([1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4])]
    table(server, "ties", "id BIGINT, temp DOUBLE PRECISION", *rows)
    reader = make(server, table="ties", batch=3)
    await reader.start(None)
    samples = await read_all(reader, 12)
    await reader.stop()
    assert sorted(float(str(sample.value)) for sample in samples) == list(range(12))


async def test_kinds_of_value_and_null(server: Server, make: Make) -> None:
    table(
        server,
        "kinds",
        "id BIGINT, num DECIMAL(30, 10), word VARCHAR(20), whole INTEGER, empty_ DOUBLE PRECISION, day DATE",
        "(1, 12345678901234567890.0123456789, 'grün', -7, NULL, '2026-03-01')",
    )
    tags = [{"name": column, "column": column} for column in ("num", "word", "whole", "empty_", "day")]
    exact = {"name": "exact", "column": "num", "text": True}
    reader = make(server, table="kinds", tag=[*tags, exact])
    await reader.start(None)
    (num, word, whole, nothing, day, text) = (await reader.read()).samples
    await reader.stop()
    assert num.value == pytest.approx(12345678901234567890.0123456789, rel=1e-15)
    assert (word.value, whole.value, day.value) == ("grün", -7, "2026-03-01")
    assert (nothing.value, nothing.quality) == (None, Quality.UNCERTAIN)
    if not isinstance(server, Sqlite):  # SQLite itself stores a DECIMAL as a float
        assert text.value == "12345678901234567890.0123456789"


async def test_time_column_in_the_plant_s_zone(server: Server, make: Make) -> None:
    kind = "TEXT" if isinstance(server, Sqlite) else "TIMESTAMP(6)" if isinstance(server, PostgreSql) else "DATETIME(6)"
    table(
        server, "timed", f"id BIGINT, at {kind}, temp INTEGER, load_ INTEGER", "(1, '2026-05-04 08:00:00.123456', 3, 4)"
    )
    tags = [{"name": "temperature", "column": "temp"}, {"name": "load", "column": "load_"}]
    reader = make(server, table="timed", time="at", timezone="Asia/Shanghai", tag=tags)
    await reader.start(None)
    samples = (await reader.read()).samples
    await reader.stop()
    moment = datetime(2026, 5, 4, 8, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert {sample.source_time for sample in samples} == {int(moment.timestamp()) * 10**9 + 123_456_000}
    unzoned = make(server, table="timed", time="at", tag=tags)
    await unzoned.start(None)
    with pytest.raises(ConnectorConfigError, match="FF-SQL-004"):
        await unzoned.read()
    await unzoned.stop()


@pytest.mark.server("postgresql")
async def test_a_zoned_time_as_cursor(postgresql: PostgreSql, make: Make) -> None:
    table(
        postgresql,
        "zoned",
        "at TIMESTAMPTZ, temp INTEGER",
        *(f"('2026-05-04 08:00:0{second}+08', {second})" for second in range(5)),
    )
    postgresql.execute("ALTER ROLE reader SET timezone = 'America/New_York'")
    reader = make(postgresql, table="zoned", cursor="at", time="at", batch=2)
    await reader.start(None)
    samples = await read_all(reader, 5)
    await reader.stop()
    assert [sample.value for sample in samples] == list(range(5))
    assert samples[0].source_time == int(datetime(2026, 5, 4, tzinfo=UTC).timestamp()) * 10**9


async def test_a_query_with_colons_and_percents(server: Server, make: Make) -> None:
    table(server, "jobs", "id BIGINT, temp INTEGER, note VARCHAR(20)", "(1, 2, '100% :x 8:00')", "(2, 4, 'other')")
    query = "SELECT id, temp * 10 AS scaled, note FROM jobs WHERE note LIKE '%:x 8:00'"
    reader = make(server, query=query, tag=[{"name": "scaled", "column": "scaled"}, {"name": "note", "column": "note"}])
    await reader.start(None)
    assert [sample.value for sample in await read_all(reader, 2)] == [20, "100% :x 8:00"]
    await reader.stop()


async def test_the_session_cannot_write(server: Server, make: Make) -> None:
    table(server, "precious", "id BIGINT, temp INTEGER", "(1, 2)")
    reader = make(server, table="precious")
    await reader.start(None)
    session = reader._session  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=r"(?i)read.?only"):
        await session.run(lambda: session.database._connection.exec_driver_sql("INSERT INTO precious VALUES (2, 3)"))
    assert len(await read_all(reader, 1)) == 1
    await reader.stop()


async def test_a_slow_query_ends(server: Server, make: Make) -> None:
    slow = {
        PostgreSql: "SELECT 1 AS id, pg_sleep(60) AS temp",
        MariaDb: "SELECT 1 AS id, SLEEP(60) AS temp",
        Sqlite: "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, sum(id) AS temp FROM n",
    }[type(server)]
    if isinstance(server, Sqlite):
        table(server, "any_table")
    reader = make(server, query=slow, timeout_s=1.0)
    with pytest.raises(ConnectorError, match=r"FF-SQL-00[23]"):
        await asyncio.wait_for(start_and_read(reader), 15)
    await reader.stop()


async def test_probe_reads_the_newest_row(server: Server, make: Make) -> None:
    table(server, "newest", "id BIGINT, temp INTEGER", "(1, 10)", "(3, 30)", "(2, 20)")
    (reading,) = await make(server, table="newest").probe()
    assert (reading.value, reading.quality) == (30, Quality.GOOD)
    table(server, "newest")
    (reading,) = await make(server, table="newest").probe()
    assert (reading.value, reading.quality) == (None, Quality.BAD)


async def test_a_wrong_table_or_column_names_it(server: Server, make: Make) -> None:
    table(server, "present", "id BIGINT, temp INTEGER")
    for options in ({"table": "absent"}, {"table": "present", "tag": [{"name": "t", "column": "absent"}]}):
        reader = make(server, **options)
        with pytest.raises(ConnectorError, match=r"(?s)FF-SQL-002.*absent"):
            await reader.start(None)
        await reader.stop()


@SERVERS
@pytest.mark.parametrize("right", [True, False], ids=["its-certificate", "another-certificate"])
async def test_over_tls(
    name: str, right: bool, request: pytest.FixtureRequest, password: dict[str, str], tmp_path: Path
) -> None:
    server: DatabaseServer = request.getfixturevalue(name)
    make_certificate(tmp_path, "other", "urn:another")
    ca = server.certificate if right else tmp_path / "other.pem"
    options = f"sslmode=verify-ca&sslrootcert={ca}" if name == "postgresql" else f"ssl_ca={ca}"
    encrypted = {
        "postgresql": "SELECT 1 AS id, version AS v FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        "mariadb": "SELECT 1 AS id, variable_value AS v FROM information_schema.session_status "
        "WHERE variable_name = 'Ssl_version'",
    }[name]
    kind = get("sql")
    section = {
        "name": "mes",
        "url": f"{server.url}?{options}",
        "password": password,
        "query": encrypted,
        "cursor": "id",
    }
    reader = kind.create(kind.config.model_validate({**section, "tag": [{"name": "version", "column": "v"}]}))
    if right:
        (reading,) = await reader.probe()
        assert str(reading.value).startswith("TLSv1.")
    else:
        with pytest.raises(ConnectorError, match="FF-SQL-001"):
            await reader.probe()


@SERVERS
async def test_server_restarted(name: str, request: pytest.FixtureRequest, make: Make) -> None:
    server: DatabaseServer = request.getfixturevalue(name)
    table(server, "kept", "id BIGINT, temp INTEGER", "(1, 10)")
    reader = make(server, table="kept")
    await reader.start(None)
    batch = await reader.read()
    await batch.acknowledge()
    waiting = asyncio.create_task(reader.read())
    await asyncio.to_thread(server.stop)
    with pytest.raises(ConnectorError, match="FF-SQL-003"):
        async with asyncio.timeout(20):
            await waiting
    await reader.stop()
    with pytest.raises(ConnectorError, match="FF-SQL-001"):
        await reader.start(batch.cursor)
    await reader.stop()
    await reader.stop()
    await asyncio.to_thread(server.start)
    server.execute("INSERT INTO kept VALUES (2, 20)")
    await reader.start(batch.cursor)
    assert [sample.value for sample in await read_all(reader, 1)] == [20]
    await reader.stop()


@SERVERS
async def test_a_wrong_password_is_never_shown(
    name: str,
    request: pytest.FixtureRequest,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("PLANT_DB", "wr0ng-password")
    reader = make(request.getfixturevalue(name), table="any", password={"env": "PLANT_DB"})
    with pytest.raises(ConnectorError, match="FF-SQL-001") as refused:
        await reader.start(None)
    await reader.stop()
    assert "wr0ng-password" not in str(refused.value) + caplog.text + repr(reader)
    assert refused.value.__cause__ is None


async def test_a_missing_sqlite_file_is_not_created(sqlite: Sqlite, make: Make) -> None:
    with pytest.raises(ConnectorError, match="FF-SQL-001"):
        await make(sqlite, table="readings").start(None)
    assert not sqlite.file.exists()
