"""The tables of a member: made once, of a known version, and left alone where a later fedfab made them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import inspect

from federation import schema, tables
from federation.database import connect
from federation.errors import FederationError


def test_tables_are_made_with_their_version_and_found_again(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'outbox.db'}")
    for _ in range(2):
        schema.make(engine)
        assert set(inspect(engine).get_table_names()) == set(tables.metadata.tables)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA user_version").scalar_one() == schema.VERSION
    engine.dispose()


def test_a_file_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'outbox.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(
        FederationError, match=f"FF-FED-043: .*outbox.db has schema {schema.VERSION + 1}, this fedfab knows"
    ):
        schema.make(engine)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
