"""A changed file taken over while the gateway runs: what it may change, what it leaves alone, and what it refuses."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.errors import FedfabError
from common.reload import Part, Reload, differences
from gateway.config import Config
from gateway.configfile import load
from tests.conftest import free_port
from tests.gateway.plants import config
from tests.gateway.running import Daemon, source_of
from tests.gateway.served import draft, onnx_model
from tests.servers.opcua import OpcUaServer
from trust import pki

OPCUA = """
[[source]]
name = "line"
type = "opcua"
endpoint = "{endpoint}"
publishing_s = 0.05
sampling_s = 0.0
[[source.tag]]
name = "temperature"
node = "ns=2;s=Press.Temperature"
"""


def changed(made: Config, **sections: object) -> Config:
    return made.model_copy(update=sections)


def test_differences_name_the_table_and_the_option(tmp_path: Path) -> None:
    made = config(tmp_path, ends=("m1", "m2"))
    log = made.log.model_copy(update={"level": "debug"})
    inference = made.inference.model_copy(update={"listen": "127.0.0.1:1", "timeout_s": 1.0})
    other = changed(made, log=log, inference=inference, sources=made.sources[:1], version=99)
    assert set(differences(made, other)) == {"log.level", "inference.listen", "inference.timeout_s", "source"}
    assert set(differences(made, made.model_copy(deep=True))) == set()


class Told:
    """Parts that note what they are told, and refuse what they are to refuse."""

    def __init__(self) -> None:
        self.order: list[tuple[str, str]] = []

    def part(self, name: str, *reads: str, refuses: str = "", files: tuple[Path, ...] = ()) -> Part[Config]:
        return Part(name, frozenset(reads), self._apply(name, refuses), lambda _: files)

    def _apply(self, name: str, refuses: str) -> Callable[[Config], Awaitable[None]]:
        async def apply(new: Config) -> None:
            if new.log.level == refuses:
                raise FedfabError("FF-TEST-003", f"{name} cannot")
            self.order.append((name, new.log.level))

        return apply


def leveled(made: Config, level: str) -> Config:
    return changed(made, log=made.log.model_copy(update={"level": level}))


async def test_only_parts_that_read_what_changed_are_told(tmp_path: Path) -> None:
    made, told = config(tmp_path), Told()
    parts = [told.part("a", "log.level"), told.part("b", "log"), told.part("c", "source"), told.part("d", "log.format")]
    reload = Reload(made, lambda: leveled(made, "error"), parts)
    await reload.again()
    assert told.order == [("a", "error"), ("b", "error")]
    assert (reload.tried, reload.refused, reload.config.log.level) == (1, None, "error")
    await reload.again()
    assert len(told.order) == 2, "nothing changed any more"


async def test_all_or_nothing_where_a_part_cannot_go_over(tmp_path: Path) -> None:
    made, told = config(tmp_path), Told()
    parts = [told.part("a", "log"), told.part("b", "log", refuses="error"), told.part("c", "log")]
    reload = Reload(made, lambda: leveled(made, "error"), parts)
    with capture_logs() as logs:
        await reload.again()
    assert told.order == [("a", "error"), ("a", "info")], "what had gone over went back"
    assert reload.config is made
    assert "FF-TEST-003" in str(reload.refused)
    assert [entry["event"] for entry in logs] == ["configuration refused, the old one stays"]


async def test_what_nobody_can_change_is_refused_by_its_name(tmp_path: Path) -> None:
    made, told = config(tmp_path), Told()
    other = changed(
        leveled(made, "error"),
        gateway=made.gateway.model_copy(update={"name": "other", "data_dir": tmp_path / "elsewhere"}),
    )
    reload = Reload(made, lambda: other, [told.part("a", "log")])
    await reload.again()
    assert told.order == []
    assert "FF-RELOAD-001: [gateway] data_dir, [gateway] name cannot change while the daemon runs" in str(
        reload.refused
    )


async def test_a_file_that_is_renewed_in_its_place_counts(tmp_path: Path) -> None:
    made, told, certificate = config(tmp_path), Told(), tmp_path / "server.pem"
    certificate.write_text("old")
    reload = Reload(made, lambda: made, [told.part("tls", "inference.certificate", files=(certificate,))])
    await reload.again()
    assert told.order == []
    certificate.write_text("renewed")
    await reload.again()
    assert told.order == [("tls", "info")]


async def test_reloads_one_after_the_other(tmp_path: Path) -> None:
    made, levels, asked = config(tmp_path), iter(["error", "debug", "warning"]), asyncio.Event()
    told, seen = Told(), asyncio.Queue[str]()

    async def note(new: Config) -> None:
        seen.put_nowait(new.log.level)

    reload = Reload(
        made,
        lambda: leveled(made, next(levels)),
        [told.part("a", "log"), Part("b", frozenset({"log"}), note)],
    )
    task = asyncio.create_task(reload.run(asked))
    async with asyncio.timeout(10):
        for level in ("error", "debug", "warning"):
            asked.set()
            assert await seen.get() == level
    task.cancel()
    assert [level for _, level in told.order] == ["error", "debug", "warning"]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[OpcUaServer]:
    folder = tmp_path / "opcua"
    folder.mkdir()
    with OpcUaServer(folder) as server:
        yield server


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.kill()


@pytest.mark.e2e
@pytest.mark.server("node-opcua")
@pytest.mark.clause("8.4", "9.1.2")
def test_a_reload_that_changes_one_source_touches_no_other(daemon: Daemon, line: OpcUaServer) -> None:
    """The subscription at a server of another code base goes on through every change of everything else."""
    daemon.config.write_text(daemon.config.read_text() + OPCUA.format(endpoint=line.endpoint))
    daemon.plant.write(rows=50)
    daemon.start()
    daemon.wait_for(lambda status: source_of(status, "line")["readings"] >= 1)
    daemon.wait_for_rows(40)
    first = line.sessions()

    readings = 1
    for step, (old, new) in enumerate(
        (
            ("every_s = 0.2", "every_s = 0.1"),  # another source changed
            ("every_s = 0.1", "every_s = 0.1\nenabled = false"),  # ... switched off
            ("every_s = 0.1\nenabled = false", "every_s = 0.1"),  # ... and on again
            ('[[cluster.field]]\nname = "vibration"', '[[cluster.field]]\nname = "vibration"\nmax = 5.0'),  # features
            ("[inference]", '[log]\nlevel = "debug"\n[inference]'),  # the log
            ("[inference]\n", "[inference]\nstale_after_s = 60.0\n"),  # an option of inference
            (f"127.0.0.1:{daemon.port}", f"127.0.0.1:{free_port()}"),  # where it listens
        ),
        start=1,
    ):
        daemon.edit(old, new)
        daemon.port = load(daemon.config).inference.port
        daemon.reload()
        status = daemon.status()
        assert (status["configuration"]["tried"], status["configuration"]["refused"]) == (step, None)
        line.set("Temperature", 100.0 + step)
        readings += 1
        status = daemon.wait_for(lambda status: source_of(status, "line")["readings"] >= readings)  # noqa: B023
        assert source_of(status, "line")["reconnects"] == 0
        assert line.sessions() == first == [1, 1, 1], "the same session and the same subscription"

    # its own change is a new connection
    daemon.edit("publishing_s = 0.05", "publishing_s = 0.1")
    daemon.reload()
    daemon.wait_for(lambda status: source_of(status, "line")["state"] == "reading" and line.sessions()[0] == 2)
    assert daemon.stop() == 0, daemon.words()


@pytest.mark.e2e
@pytest.mark.clause("8.4")
def test_a_tag_more_and_a_source_more_and_less(daemon: Daemon) -> None:
    daemon.plant.write(rows=50)
    daemon.start()
    daemon.wait_for_rows(40)
    another = daemon.config.read_text()
    another = another[another.index("[[source]]") : another.index("[[cluster]]")].replace('"press"', '"second"')
    daemon.edit("[[cluster]]", another + "[[cluster]]")
    daemon.reload()
    status = daemon.wait_for(
        lambda status: len(status["sources"]) == 2 and source_of(status, "second")["readings"] >= 200
    )
    assert source_of(status, "press")["reconnects"] == 0
    tag = '[[source.tag]]\nname = "id"\ncolumn = "id"\n'
    daemon.edit(another, another.replace("[[source.tag]]", tag + "[[source.tag]]", 1))
    daemon.reload()
    daemon.plant.write(rows=10)
    daemon.wait_for(lambda status: source_of(status, "second")["readings"] >= 250)
    daemon.config.write_text(daemon.config.read_text().replace('"second"', '"third"'))
    daemon.reload()
    assert [source["name"] for source in daemon.status()["sources"]] == ["press", "third"]


@pytest.mark.e2e
def test_a_bad_file_is_refused_whole_and_the_old_one_stays(daemon: Daemon) -> None:
    daemon.models.add("old", draft(), onnx_model(add=0.0))
    daemon.models.promote("old", 1, "yesterday")
    daemon.start()
    good = daemon.config.read_text()
    window = {"inputs": [{"name": "window", "shape": [1, 3, 2], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}

    daemon.edit("every_s = 0.2", "every_s = 0.1\nevery = 3")
    refused = daemon.reload()["refused"]
    line = good.splitlines().index("every_s = 0.2") + 2
    assert f'{daemon.config}:{line}: source "press": ' in refused
    assert "FF-CONFIG-003" in daemon.words()
    assert daemon.ask("/v2/models/old/infer", window)[0] == 200
    told = daemon.command("reload")
    assert (told.returncode, "FF-CONFIG-003" in told.stderr) == (2, True)

    daemon.config.write_text(good.replace('name = "gateway-a"', 'name = "gateway-b"'))
    told = daemon.command("reload")
    assert told.returncode == 2
    assert "FF-RELOAD-002" in told.stderr
    assert "[gateway] name cannot change while the daemon runs" in " ".join(told.stderr.split())
    assert daemon.status()["gateway"] == "gateway-a"

    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        daemon.config.write_text(good.replace(f"127.0.0.1:{daemon.port}", f"127.0.0.1:{taken}"))
        assert "FF-INFER-011" in daemon.reload()["refused"]
    assert daemon.ask("/v2/models/old/infer", window)[0] == 200

    daemon.config.write_text(good)
    told = daemon.command("reload")
    assert (told.returncode, told.stderr) == (0, "")
    assert daemon.status()["configuration"]["refused"] is None


@pytest.mark.e2e
@pytest.mark.clause("9.2.4")
def test_a_renewed_certificate_is_served_after_a_reload_and_no_connection_is_refused(tmp_path: Path) -> None:
    pki.init(tmp_path / "ca", ["intl"], "Test Works")
    pki.issue(tmp_path / "ca", pki.Request("gateway-a", "gateway", "Test Works", ["127.0.0.1"]))
    identity = tmp_path / "ca" / "issued" / "gateway-a"
    daemon = Daemon(
        tmp_path,
        extra=f'certificate = "{identity / "intl.crt"}"\nkey = "{identity / "intl.key"}"\nopen = ["infer", "status"]',
    )
    try:
        daemon.start()
        before = _served(daemon)
        pki.renew(tmp_path / "ca", "gateway-a")
        assert _served(daemon) == before, "not before it is told"
        told = daemon.command("reload")
        assert told.returncode == 0, told.stderr
        assert _served(daemon) != before
    finally:
        daemon.kill()


def _served(daemon: Daemon) -> str:
    """The certificate that a client sees."""
    return ssl.get_server_certificate(("127.0.0.1", daemon.port))
