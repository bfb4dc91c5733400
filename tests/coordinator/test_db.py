"""Migrations: they arrive at the tables the code uses, once, whole or not at all, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command, op
from sqlalchemy import inspect, text

from coordinator import db
from coordinator.errors import CoordinatorError
from tests.coordinator.servers import fresh_databases


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'c.db'}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Callable[[], str]]:
    with fresh_databases() as fresh:
        yield fresh


def _agrees(url: str) -> None:
    before, after = db.migrate(url)
    assert before is None
    assert db.migrate(url) == (after, after)
    engine = db.connect(url)
    with engine.connect() as connection:
        command.check(db.alembic_config(connection))  # raises where migrations and tables differ
    engine.dispose()


def _once(url: str) -> None:
    """Four processes that start at the same time: one migrates, the others find it done."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: db.migrate(url)[0], range(4)))
    assert found.count(None) == 1


def _tables(url: str) -> list[str]:
    engine = db.connect(url)
    names = inspect(engine).get_table_names()
    engine.dispose()
    return names


def _whole_or_not_at_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def failing(name: str, *columns: object, **options: object) -> object:
        if len(made) == 3:
            raise RuntimeError("power cut")
        made.append(name)
        return original(name, *columns, **options)  # type: ignore[arg-type]

    original = op.create_table
    with monkeypatch.context() as patched:
        patched.setattr(op, "create_table", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            db.migrate(url)
    assert _tables(url) == []
    _agrees(url)


def _newer(url: str) -> None:
    db.migrate(url)
    engine = db.connect(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(CoordinatorError, match=r"revision unknown to this version.*9999") as refused:
        db.migrate(url)
    assert refused.value.code == "FF-COORD-012"
    if url.startswith("sqlite"):
        assert list(Path(url.removeprefix("sqlite:///")).parent.glob("*.bak")) == []


def test_migrations_and_tables_agree(sqlite: str) -> None:
    _agrees(sqlite)


def test_migrations_run_once(sqlite: str) -> None:
    _once(sqlite)


def test_a_migration_that_breaks_off_leaves_nothing(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _whole_or_not_at_all(sqlite, monkeypatch)


def test_a_database_of_a_newer_version_is_refused(sqlite: str) -> None:
    _newer(sqlite)


def test_a_file_is_copied_before_it_is_migrated(sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, revision = db.migrate(sqlite)
    assert list(tmp_path.glob("*.bak")) == []
    monkeypatch.setattr(db, "revision_needed", lambda: "later")
    db.migrate(sqlite)
    copy = tmp_path / f"c.db.{revision}.bak"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert _tables(f"sqlite:///{copy}") == _tables(sqlite)


@pytest.mark.server("postgresql")
def test_postgresql(postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    _agrees(postgres())
    _once(postgres())
    _whole_or_not_at_all(postgres(), monkeypatch)
    _newer(postgres())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://u@h/d", '"mysql" is neither sqlite nor postgresql'),
        ("sqlite://", "a database in memory would forget every task"),
        ("not a url", "Could not parse"),
    ],
)
def test_unusable_urls(url: str, reason: str) -> None:
    with pytest.raises(CoordinatorError, match=reason) as refused:
        db.connect(url)
    assert refused.value.code == "FF-COORD-010"


def test_unreachable_server_keeps_the_password_to_itself() -> None:
    with pytest.raises(CoordinatorError, match="cannot reach the database") as refused:
        db.migrate("postgresql://fedfab:hunter2@127.0.0.1:1/fedfab")
    assert refused.value.code == "FF-COORD-011"
    assert "hunter2" not in str(refused.value)
