"""Which part of the daemon goes by which options of the file, and how it goes over to new ones; all other options need a restart."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.log import configure
from common.reload import Part, options
from common.selfcheck import SelfCheck
from common.tasklog import TaskLogs
from gateway import membership
from gateway.config import Config
from gateway.inference import InferenceServer
from gateway.inference.tls import context
from gateway.membership import Membership
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.seeing import overview
from gateway.seeing.overview import Seeing
from gateway.store.upkeep import Upkeep

_MACHINES = frozenset({"source", "cluster", "end"})
_FEDERATION = frozenset({"coordinator", "trust"})
_LISTENER = frozenset(
    f"inference.{option}" for option in ("listen", "certificate", "key", "identity", "client_ca", "client", "open")
)


def parts(
    *,
    server: InferenceServer,
    check: SelfCheck,
    member: Membership,
    upkeep: Upkeep,
    runtime: Runtime,
    programs: Programs,
    seeing: Seeing,
    task_logs: TaskLogs,
) -> list[Part[Config]]:
    """In the order in which they are told: first those that may have to refuse."""

    async def listener(new: Config) -> None:
        tls = context(new.inference, new.trust)
        check.at(await server.listen(new.inference.host, new.inference.port, tls), tls)

    async def inference(new: Config) -> None:
        server.apply(new.inference, new.trust)

    async def bounds(new: Config) -> None:
        upkeep.apply(new.store, list(new.schemas))

    async def names(new: Config) -> None:
        server.ends = new.schemas
        programs.config = new

    async def log(new: Config) -> None:
        configure(new.log.level, new.log.format, first=task_logs, first_level=new.log.task_level)

    return [
        Part("listener", _LISTENER | {"trust"}, listener, _listener_files),
        Part("inference", options(Config, "inference") - {"inference.threads"} | {"trust"}, inference),
        Part("federation", _FEDERATION, member.apply, membership.files),
        Part("seeing", overview.READS, seeing.apply),
        Part("upkeep", frozenset({"store", "end"}), bounds),
        Part("runtime", _MACHINES, runtime.apply),
        Part("names", _MACHINES | _FEDERATION, names),
        Part("log", frozenset({"log.level", "log.format"}), log),
        Part("leaving", frozenset({"service.stop_s"})),
    ]


def _listener_files(config: Config) -> Iterable[Path]:
    found = (config.inference.certificate, config.inference.key, config.inference.client_ca)
    return [path for path in found if path is not None]
