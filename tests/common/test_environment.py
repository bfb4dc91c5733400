"""Variables of the environment in a document: put in after parsing, never structure, never shown."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from common import tomlfile
from common.environment import Problem, as_written, substituted, variables

VARIABLES = {"HOST": "plc-1", "PORT": "4840", "EMPTY": "", "DOLLAR": "${HOST}"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${HOST}", "plc-1"),
        ("opc.tcp://${HOST}:${PORT}/x", "opc.tcp://plc-1:4840/x"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b $ { c}", "a:-b $ { c"),
        ("${HOST:-other}", "plc-1"),
        ("$${HOST} and ${HOST}", "${HOST} and plc-1"),
        ("${DOLLAR}", "${HOST}"),  # what a variable holds is not looked at again
        ("costs $5, $HOST, {HOST}", "costs $5, $HOST, {HOST}"),
    ],
)
def test_texts(written: str, value: str) -> None:
    assert substituted({"a": [{"b": written}]}, VARIABLES) == ({"a": [{"b": value}]}, [])


@pytest.mark.parametrize("written", ["${}", "${HOST", "${1}", "${a-b}", "${HOST:+x}"])
def test_what_is_no_variable_is_an_error_and_not_a_text(written: str) -> None:
    _, (problem,) = substituted({"a": written}, VARIABLES)
    assert problem.where == ("a",)
    assert "expected ${NAME} or ${NAME:-default}" in problem.what


def test_every_unset_variable_is_told_with_its_place() -> None:
    data = {"a": "${X}", "b": [{"c": 1}, {"c": "${Y}${Z}"}]}
    _, problems = substituted(data, {})
    told = "the environment variable {0} is not set, and there is no default: ${{{0}:-default}}"
    places = [(("a",), "X"), (("b", 1, "c"), "Y"), (("b", 1, "c"), "Z")]
    assert problems == [Problem(where, told.format(name)) for where, name in places]


@given(st.text())
def test_whatever_a_variable_holds_it_is_one_value(value: str) -> None:
    data = tomllib.loads('[source]\nname = "${V}"\nother = 1\n')
    found, problems = substituted(data, {"V": value})
    assert (found, problems) == ({"source": {"name": value, "other": 1}}, [])


@given(st.text(alphabet="$ {}:-AB_\"'\n\\"))
def test_nothing_written_crashes(text: str) -> None:
    substituted([text], {"A": "1", "B": ""})


class Machine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = 1
    port: int = Field(default=0, le=65535)
    rate: float | None = None
    on: bool = False
    name: str = Field(default="x", pattern="^[a-z]+$")
    user: str = ""

    @field_validator("user")
    @classmethod
    def _known(cls, user: str) -> str:
        if user.startswith("hunter"):
            raise ValueError(f'there is no user "{user}"')
        return user


def load(tmp_path: Path, text: str) -> Machine:
    file = tmp_path / "machine.toml"
    file.write_text(text)
    return tomlfile.load(file, Machine, hint="read the manual")


def test_a_variable_may_be_a_number_or_a_boolean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"P": "502", "R": "0.5", "O": "true"}.items():
        monkeypatch.setenv(name, value)
    machine = load(tmp_path, 'port = "${P}"\nrate = "${R}"\non = "${O}"\n')
    assert (machine.port, machine.rate, machine.on) == (502, 0.5, True)


def test_no_error_shows_what_a_variable_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", "hunter2")
    with pytest.raises(tomlfile.FileError) as refused:
        load(tmp_path, 'port = "${V}"\nrate = "${V}"\n\non = "${V}"\nname = "a ${V}"\nuser = "${V}"\n')
    text = str(refused.value)
    assert "hunter2" not in text
    assert 'machine.toml:1: "port": expected a valid integer' in text
    assert 'got "${V}", whose value is not shown' in text
    assert 'machine.toml:6: "user": there is no user "${V}"' in text


def test_an_unset_variable_is_told_with_file_line_and_option(tmp_path: Path) -> None:
    with pytest.raises(tomlfile.FileError, match="FF-FILE-003") as refused:
        load(tmp_path, '\nname = "${FEDFAB_NOT_SET}"\n')
    assert f'{tmp_path}/machine.toml:2: "name": the environment variable FEDFAB_NOT_SET is not set' in str(
        refused.value
    )


def test_masking_leaves_parts_of_words_alone() -> None:
    value, _ = substituted({"a": "${V}"}, {"V": "at"})
    assert as_written('expected that "at" is', value) == 'expected that "${V}" is'


def test_masking_takes_a_text_as_it_is() -> None:
    value, _ = substituted({"a": r"${V:-\1}\g<0>"}, {"V": "x.y"})
    assert as_written(r"got x.y\g<0>, not xzy\g<0>", value) == r"got ${V:-\1}\g<0>, not xzy\g<0>"


def test_variables_stand_in_a_file_beside_the_configuration_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment").write_text('# ours\n\nMY_PORT=502\nMY_NAME = "a b"  \nMY_OTHER=x=y\n')
    monkeypatch.setenv("MY_OTHER", "of the process")
    found = variables(tmp_path)
    assert (found["MY_PORT"], found["MY_NAME"], found["MY_OTHER"]) == ("502", "a b", "of the process")
    assert load(tmp_path, 'port = "${MY_PORT}"').port == 502


@pytest.mark.parametrize(
    ("content", "said"), [(b"A=1\n\nno equals\n", "environment:3: expected NAME=value"), (b"A=\xff", "codec")]
)
def test_a_file_of_variables_that_cannot_be_used(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "environment").write_bytes(content)
    with pytest.raises(tomlfile.FileError, match=f"FF-FILE-006: .*{said}"):
        load(tmp_path, "port = 1")
