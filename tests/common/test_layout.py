"""Versions of a file: options move in memory and in the text, comments stay, nothing is written that would mean something else."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import upgrade
from common.layout import Layout, Move, NewerError, VersionError
from common.tomlfile import FileError
from common.tomlmap import lines

LAYOUT = Layout(
    changes=(
        (Move(("log", "style"), ("log", "format")),),
        (Move(("node", "database"), ("database", "url")), Move(("log", "format"), ("log", "shape"))),
    )
)

FIRST = """\
# Of plant 7; ask Anna.

[node]                       # who we are
name = "a"
database = "sqlite:///x.db"  # on the fast disk
limits = { size = 1 }

[log]
# for the shipper:
style = "json"  # one object a line
"""

THIRD = """\
# Of plant 7; ask Anna.

version = 3

[node]                       # who we are
name = "a"
limits = { size = 1 }

[log]
# for the shipper:
shape = "json"  # one object a line

[database]
url = "sqlite:///x.db"  # on the fast disk
"""


def test_the_text_keeps_comments_and_order() -> None:
    assert LAYOUT.rewritten(FIRST) == THIRD


def test_the_present_version_is_left_as_it_is() -> None:
    assert LAYOUT.rewritten(THIRD) == THIRD


def test_an_old_file_with_nothing_to_move_is_left_as_it_is() -> None:
    assert LAYOUT.rewritten('[node]\nname = "a"\n') == '[node]\nname = "a"\n'


def test_a_version_in_between_takes_only_the_later_steps() -> None:
    text = 'version = 2 # of May\n[log]\nstyle = "unknown in 2"\nformat = "json"\n'
    assert LAYOUT.rewritten(text) == 'version = 3 # of May\n[log]\nstyle = "unknown in 2"\nshape = "json"\n'


def test_memory_and_text_agree_and_lines_move_along() -> None:
    data, places = tomllib.loads(FIRST), lines(FIRST)
    assert LAYOUT.migrate(data, places, 1)
    assert {**data, "version": 3} == tomllib.loads(LAYOUT.rewritten(FIRST))
    assert FIRST.splitlines()[places["log", "shape"] - 1].startswith("style")
    assert FIRST.splitlines()[places["database", "url"] - 1].startswith("database")
    assert ("database",) in places


def test_a_table_that_is_there_takes_the_option() -> None:
    text = '[database] # ours\npool = 1\n[node]\ndatabase = "x"'
    assert LAYOUT.rewritten(text) == 'version = 3\n\n[database] # ours\nurl = "x"\npool = 1\n[node]\n'


@pytest.mark.parametrize(
    "text",
    [
        'node = { name = "a", database = "x" }\n',
        'node = { database = "x" }\ndatabase = { pool = 1 }\n',
        '[node]\ndatabase = "x"\ntext = """\n[database]\n"""\n',
        '[node.database]\nhost = "x"\n',
    ],
)
def test_what_is_not_safe_to_edit_is_left_to_a_person(text: str) -> None:
    with pytest.raises(VersionError):
        LAYOUT.rewritten(text)
    data = tomllib.loads(text)
    assert LAYOUT.migrate(data, lines(text), 1)  # and works all the same


def test_an_option_at_both_places_is_left_to_be_complained_about() -> None:
    text = '[log]\nstyle = "a"\nshape = "b"\nformat = "c"\n'
    assert LAYOUT.rewritten(text) == text


def test_a_later_version_is_refused() -> None:
    with pytest.raises(NewerError, match="version 4 belongs to a later fedfab; this one knows versions up to 3"):
        LAYOUT.version_of({"version": 4})


@pytest.mark.parametrize("version", [0, -1, "2", 1.0, True])
def test_what_is_no_version(version: object) -> None:
    with pytest.raises(VersionError, match="expected a whole number from 1 to 3"):
        LAYOUT.version_of({"version": version})


keys = st.sampled_from(["style", "format", "shape", "database", "name", '"quoted"'])
values = st.sampled_from(['"x"', "1", "[1, 2]", "{ a = 1 }", '"""\n[log]\n"""', "'# no comment'"])
tables = st.sampled_from(["node", "log", "database", "other"])
files = st.dictionaries(tables, st.dictionaries(keys, values))
ends = st.sampled_from(["\n", " # why\n", "\r\n", "\n\n"])


@given(files, ends)
def test_the_edit_means_what_memory_means_or_is_refused(content: dict[str, dict[str, str]], end: str) -> None:
    text = "".join(
        f"[{table}]{end}" + "".join(f"{key} = {value}{end}" for key, value in pairs.items())
        for table, pairs in content.items()
    )
    data = tomllib.loads(text)
    moved = LAYOUT.migrate(data, lines(text), 1)
    try:
        new = LAYOUT.rewritten(text)
    except VersionError:
        return
    assert tomllib.loads(new) == ({**data, "version": 3} if moved else data)


def test_files_are_replaced_with_mode_and_owner_and_the_old_ones_kept(tmp_path: Path) -> None:
    main, piece, other = (tmp_path / name for name in ("main.toml", "piece.toml", "other.toml"))
    main.write_text('[node]\nname = "a"\n')
    piece.write_text('[log]\nstyle = "json"\n')
    other.write_text("[other]\n")
    piece.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(piece, 65534, 65534)
    had = piece.stat()
    (rewrite,) = upgrade.plan([main, piece, other], LAYOUT)
    assert '-style = "json"\n' in rewrite.diff()
    assert '+shape = "json"\n' in rewrite.diff()
    upgrade.write([rewrite])
    assert piece.read_text() == 'version = 3\n\n[log]\nshape = "json"\n'
    backup = tmp_path / "piece.toml.v1.bak"
    assert backup.read_text() == '[log]\nstyle = "json"\n'
    for file in (piece, backup):
        now = file.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (had.st_mode, had.st_uid, had.st_gid)
    assert upgrade.plan([main, piece, other], LAYOUT) == []


def test_a_piece_without_a_version_has_that_of_the_main_file(tmp_path: Path) -> None:
    main, piece = tmp_path / "main.toml", tmp_path / "piece.toml"
    main.write_text("version = 3\n")
    piece.write_text('[log]\nstyle = "json"\n')
    assert upgrade.plan([main, piece], LAYOUT) == []


def test_what_only_a_person_can_move_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "main.toml"
    file.write_text('node = { database = "x" }\n')
    with pytest.raises(FileError, match=r"FF-FILE-005.*main.toml:1: move node.database to database.url by hand"):
        upgrade.plan([file], LAYOUT)
    assert [each.name for each in tmp_path.iterdir()] == ["main.toml"]
