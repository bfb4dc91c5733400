"""The configuration file: the sample is right, and every mistake is told with file, line, element and option."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.gateway import app
from gateway import configdocs
from gateway.config import Config
from gateway.configfile import load, write_sample
from gateway.errors import ConfigError

SAMPLE = (files("gateway") / "sample.toml").read_text()
DOCS = Path(__file__).parent.parent.parent / "docs" / "configuration.md"


def mistakes(tmp_path: Path, old: str, new: str) -> list[str]:
    """What is said of the sample with one thing changed, without the folder."""
    assert SAMPLE.count(old) >= 1, old
    file = tmp_path / "gateway.toml"
    file.write_text(SAMPLE.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(file)
    first, *rest = caught.value.message.splitlines()
    assert first == "the configuration cannot be used"
    return [line.removeprefix(f"{tmp_path}/") for line in rest]


def line_of(text: str, document: str = SAMPLE) -> int:
    return document[: document.index(text)].count("\n") + 1


def test_the_sample_is_right(tmp_path: Path) -> None:
    config = load(write_sample(tmp_path / "new"))
    assert config.gateway.store == tmp_path / "new" / "data" / "store.db"
    assert config.trust is not None
    assert config.trust.identity == tmp_path / "new" / "identity"
    schema = config.schema_of("spindles")
    assert [(field.name, field.unit) for field in schema.fields] == [("vibration", "mm/s"), ("temperature", "degC")]
    assert (schema.label.name, schema.label.unit) == ("remaining", "cycles")
    assert [end.name for end in config.ends_of("spindles")] == ["spindle-1"]


def test_init_puts_the_data_where_it_is_told(tmp_path: Path) -> None:
    where = tmp_path / 'odd "name"'
    assert load(write_sample(tmp_path / "new", where)).gateway.data_dir == where


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    write_sample(tmp_path)
    with pytest.raises(ConfigError, match="FF-CONFIG-004"):
        write_sample(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ('endpoint = "', 'endpiont = "', 'endpoint = "', 'source "press-line": unknown option "endpiont" (did you mean "endpoint"?)'),
        ('type = "opcua"', 'type = "opcau"', 'type = "', 'got "opcau" (did you mean "opcua"?)'),
        ('type = "opcua"', "", "[[source]]\nname", '"type" is missing: expected one of'),
        ('name = "gateway-a" ', "", "[gateway]\n", '[gateway]: "name" is missing: Name of this gateway'),
        ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:65536"', "listen", '"listen": expected host:port, port up to 65535'),
        ("processes = 1", "processes = 0", "processes", '[workers]: "processes": expected greater than or equal to 1, got 0'),
        ('suite = "gm"', 'suite = "intel"', "suite =", "expected 'gm' or 'intl', got \"intel\" (did you mean \"intl\"?)"),
        ('on_change = "cycle"', 'on_change = "cycles"', "rows =",
         'cluster "spindles": rows: there is no field "cycles" (did you mean "cycle"?)'),
        ('on_change = "cycle"', 'on_change = "cycle", every_s = 1', "rows =", "expected exactly one of on_change"),
        ('group = "run"', 'group = "Run"', 'group = "', 'there is no field "Run" (did you mean "run"?)'),
        ('group = "run" ', "", "label =", '"remaining" needs the option group'),
        ("cap = 125", 'cap = "a lot"', "label =", '"cap": expected a valid number'),
        ('name = "run"\nrole = "aux"', 'name = "run"', '[[cluster.field]]\nname = "run"', 'field "run": expected role = "aux"'),
        ("min = -40.0", "min = 400.0", '[[cluster.field]]\nname = "temperature"', "min 400.0 is greater than max 200.0"),
        ('name = "run"\nrole', 'name = "cycle"\nrole', 'name = "run"\nrole', 'there is another field "cycle"'),
        ('cluster = "spindles"', 'cluster = "spindels"', 'cluster = "spindles"',
         'end "spindle-1": there is no cluster "spindels" (did you mean'),
        ('run = "press-line/spindle-1.run"', "", "[end.tags]", 'field "run" of cluster "spindles" has no tag'),
        ('"press-line/spindle-1.run"', '"press-lin/spindle-1.run"', 'run = "press',
         'there is no source "press-lin" (did you mean "press-line"?)'),
        ('"press-line/spindle-1.run"', '"press-line/spindle-1.ru"', 'run = "press',
         'source "press-line" has no tag "spindle-1.ru" (did you mean'),
        ('"press-line/spindle-1.run"', '"spindle-1.run"', 'run = "press', 'end "spindle-1": tags: "run": expected match pattern'),
        ('run = "press-line', 'runn = "press-line', 'run = "press', 'cluster "spindles" has no field "runn" (did you mean "run"?)'),
        ('"127.0.0.1:8080"', '"0.0.0.0:8080"', "[inference]", '"0.0.0.0:8080" is not loopback, so certificate and key are required'),
        ("# [coordinator]\n# url = \"https:", "[coordinator]\nurl = \"http:", "# [coord",
         "expected https, because cloud.example is not this machine"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, place: str, said: str) -> None:
    told = mistakes(tmp_path, old, new)
    assert any(said in line for line in told), told
    assert any(line.startswith(f"gateway.toml:{line_of(place)}: ") for line in told if said in line), told


@pytest.mark.clause("5.3")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('unit = "degF"', 'unit = "mm/s"', 'field "temperature" of cluster "spindles" is in "degC", but tag '
         '"press-line/spindle-1.temperature" is in "mm/s", which cannot be converted'),
        ('unit = "degF"', "", 'field "temperature" of cluster "spindles" is in "degC", but tag '
         '"press-line/spindle-1.temperature" is in no unit, which cannot be converted'),
        ('temperature = "press-line', 'temperatur = "press-line', 'field "temperature" of cluster "spindles" has no tag'),
    ],
)  # fmt: skip
def test_an_end_whose_schema_differs_is_refused_naming_the_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    told = mistakes(tmp_path, old, new)
    assert any('end "spindle-1"' in line and said in line for line in told), told


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(SAMPLE.replace("data_dir", "data_dri").replace("node =", "nod =").replace("cap = 125", "cap = -1"))
    with pytest.raises(ConfigError, match="FF-CONFIG-003") as caught:
        load(file)
    told = caught.value.message.splitlines()[1:]
    numbers = [int(line.removeprefix(f"{file}:").split(":")[0]) for line in told]
    assert len(told) >= 6
    assert numbers == sorted(numbers)


def test_pieces_are_joined_and_their_mistakes_have_their_own_lines(tmp_path: Path) -> None:
    head, _, end = SAMPLE.partition("\n[[end]]\n")
    file = tmp_path / "gateway.toml"
    file.write_text(head)
    pieces = tmp_path / "conf.d"
    pieces.mkdir()
    (pieces / "10-ends.toml").write_text(f"[[end]]\n{end}")
    (pieces / "20-more.toml").write_text(f"[[end]]\n{end}".replace('"spindle-1"', '"spindle-2"', 1))
    assert [each.name for each in load(file).ends] == ["spindle-1", "spindle-2"]
    (pieces / "20-more.toml").write_text(f"[[end]]\n{end}")
    with pytest.raises(ConfigError, match=r'20-more.toml:2: end "spindle-1": there is another end "spindle-1"'):
        load(file)
    (pieces / "20-more.toml").write_text('\n[gateway]\nname = "other"\n')
    with pytest.raises(ConfigError, match=r"20-more.toml:2: \[gateway\] was set before, at .*gateway.toml:\d+"):
        load(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[gateway]\nname = "a\n', "gateway.toml:2: not TOML: Illegal character"),
        (b"[gateway]\n\nname = [", "gateway.toml:3: not TOML: "),
        (b'[gateway]\nname = "\xe9"\n', "gateway.toml:2: expected UTF-8 text, got the byte 0xe9"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="FF-CONFIG-002") as caught:
        load(file)
    assert said in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FF-CONFIG-001"):
        load(tmp_path / "absent.toml")


def test_secrets_are_not_repeated_in_messages(tmp_path: Path) -> None:
    told = mistakes(tmp_path, 'endpoint = "', 'user = "u"\npassword = "hunter2"\nendpoint = "')
    assert told
    assert not any("hunter2" in line for line in told)


def test_variables_and_numbers_from_the_environment_in_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLC", "plc-7")
    monkeypatch.setenv("WORKERS", "3")
    file, piece = tmp_path / "gateway.toml", tmp_path / "conf.d" / "label.toml"
    file.write_text(
        SAMPLE.replace("127.0.0.1:4840", "${PLC}:${PORT:-4840}").replace("processes = 1", 'processes = "${WORKERS}"')
    )
    piece.parent.mkdir()
    piece.write_text('\n[log]\nlevel = "${LEVEL:-debug}"\n')
    config = load(file)
    assert config.source("press-line").model_dump()["endpoint"] == "opc.tcp://plc-7:4840"
    assert (config.workers.processes, config.log.level) == (3, "debug")
    piece.write_text('\n[log]\nlevel = "${NO_SUCH_LEVEL}"\n')
    with pytest.raises(
        ConfigError, match=r'label.toml:3: \[log\]: "level": the environment variable NO_SUCH_LEVEL is not set'
    ):
        load(file)
    monkeypatch.setenv("PLC", "anna:hunter2@plc/")
    monkeypatch.setenv("NO_SUCH_LEVEL", "hunter2")
    with pytest.raises(ConfigError, match="FF-CONFIG-003") as refused:
        load(file)
    assert "hunter2" not in str(refused.value)
    assert 'got "${NO_SUCH_LEVEL}"' in str(refused.value)


def test_files_of_the_first_version_are_understood_and_brought_up_to_date(tmp_path: Path) -> None:
    file, piece = tmp_path / "gateway.toml", tmp_path / "conf.d" / "log.toml"
    file.write_text(SAMPLE.replace("version = 2 ", "# a remark ", 1))
    piece.parent.mkdir()
    piece.write_text('[log] # of Anna\nstyle = "json" # for the shipper\n')
    config = load(file)
    assert (config.version, config.log.format) == (1, "json")
    done = CliRunner().invoke(app, ["config", "migrate", "-c", str(file)])
    assert done.exit_code == 0, done.output
    assert piece.read_text() == 'version = 2\n\n[log] # of Anna\nformat = "json" # for the shipper\n'
    assert load(file) == config.model_copy(update={"version": 2})


def test_mistakes_in_a_file_of_the_first_version_have_their_own_lines(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nname = "g"\n\n[log]\n\nstyle = "jsno"\n')
    with pytest.raises(ConfigError, match=r'gateway.toml:6: \[log\]: "format": expected .*did you mean "json"'):
        load(file)


def test_files_of_a_later_version_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(SAMPLE.replace("version = 2 ", "version = 9 ", 1))
    with pytest.raises(ConfigError, match=r"FF-CONFIG-005: .*:11: version 9 belongs to a later fedfab") as refused:
        load(file)
    assert "*.bak" in refused.value.hint


def test_the_page_on_the_configuration_is_up_to_date() -> None:
    begin, end = "<!-- options -->\n", "<!-- end of options -->"
    written = DOCS.read_text().partition(begin)[2].partition(end)[0]
    assert written.strip() == configdocs.markdown(sources=False).strip(), (
        "run: fedfab gateway config docs --no-sources, and put it into docs/configuration.md"
    )


def test_every_option_is_explained() -> None:
    for name, section in {"config": configdocs.schema(), **configdocs.schema()["$defs"]}.items():
        for option, described in section.get("properties", {}).items():
            if name not in ("config", "FieldSpec"):
                assert described.get("description"), f"{name}.{option}"


def test_the_schema_knows_every_type_of_source() -> None:
    text = json.dumps(configdocs.schema())
    for kind in ("opcua", "modbus", "sql"):
        assert f'{{"const": "{kind}"' in text


def test_sections_that_are_left_out_have_defaults() -> None:
    config = Config.model_validate({"gateway": {"name": "g"}})
    assert (config.inference.host, config.inference.port) == ("127.0.0.1", 8080)
    assert (config.workers.processes, config.coordinator, config.trust) == (1, None, None)
