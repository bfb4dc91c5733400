"""The day of the coordinator, from top to bottom."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from common import service, watchdog
from common.listener import Listener
from common.reload import Reload
from common.selfcheck import SelfCheck
from coordinator import db, http
from coordinator.api import Services
from coordinator.config import Config, Listen
from coordinator.contacts import Contacts
from coordinator.credentials import credentials
from coordinator.errors import CoordinatorError
from coordinator.operations import PREFIX
from coordinator.registry import Registry
from coordinator.scheduler import Scheduler
from coordinator.seeing import Seeing, task_logs
from coordinator.serving import Door, Served
from coordinator.tasks import Tasks
from federation.callers import Callers
from federation.errors import RefusedError
from federation.hub import Hub
from federation.node import Node
from federation.server import FederationServer, made
from federation.wire import PREFIX as FEDERATION
from trust import tls
from trust.errors import TrustError

log = structlog.get_logger()


async def run(config: Config, load: Callable[[], Config], ready_fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; at SIGHUP go over to what ``load`` gives.

    Who started us is told when the addresses answer: on ``ready_fd``, one a line, and systemd.
    """
    faulthandler.enable()  # systemd ends with SIGABRT what hangs
    stop, hang_up = service.stop_signal(), service.reload_signal()
    data, deadline_s = config.coordinator.data_dir, watchdog.deadline_s(config.service.watchdog_s)
    watchdog.last_hang(data)
    async with service.one_cause(), serving(config) as served:
        with watchdog.Watchdog(deadline_s, data) as watching:
            watching.watch(served.database, *(door.check.pulse for door in served.doors))
            reload = Reload(config, load, served.parts())
            async with asyncio.TaskGroup() as day:
                going = [day.create_task(reload.run(hang_up)), day.create_task(served.checks())]
                if ready_fd is not None:
                    with os.fdopen(ready_fd, "w") as ready:
                        ready.writelines(f"{address}\n" for address in served.addresses)
                service.notify("READY=1")
                log.info("coordinator serves", name=config.coordinator.name, addresses=served.addresses)
                await stop.wait()
                service.notify("STOPPING=1")
                log.info("coordinator stops")
                service.leave_within(reload.config.service.stop_s)
                for task in going:
                    task.cancel()


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Served]:
    """A whole coordinator while the context lasts; gives what serves. Raises FedfabError where it cannot start."""
    data = config.coordinator.data_dir
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        # open what keeps
        before, now = await asyncio.to_thread(db.migrate, config.database_url)
        log.info("database ready", revision=now, before=before)
        engine = db.connect(config.database_url)
        stack.callback(engine.dispose)
        limits = config.limits
        hub = Hub(
            engine,
            data / "blobs",
            max_blob_bytes=limits.blob_gib << 30,
            quota_bytes=limits.blobs_gib_per_member << 30,
        )
        stack.push_async_callback(hub.close)
        tasks, contacts = Tasks(hub.database), Contacts(hub.database)
        registry = Registry(hub.database, data / "models")

        # take up the tasks that were running
        identities = {one.suite: credentials(config, one.suite) for one in config.listens}
        node = await stack.enter_async_context(Node.aggregator(list(identities.values()), hub))
        scheduler = Scheduler(
            node, tasks, registry, contacts, checkpoints=data / "checkpoints", running=config.limits.running_tasks
        )
        await stack.enter_async_context(scheduler.at_work())

        # open the doors to members and operators; they close first
        services = Services(config.coordinator.name, tasks, registry, contacts, scheduler, task_logs(config))
        seeing = Seeing(config, hub, tasks, contacts, scheduler)
        doors = []
        for one in config.listens:
            identity, trust = identities[one.suite]
            callers = Callers(trust, one.proxy)
            app = web.Application(
                middlewares=[seeing.count, _noting(contacts, callers)], client_max_size=config.limits.request_kib * 1024
            )
            app.router.add_get("/metrics", seeing.guarded(trust))
            members = FederationServer(identity, callers, hub)
            members.add_routes(app)
            app.add_subapp(PREFIX, http.application(services, trust))
            context = tls.server_context(identity, trust)
            listener, where = await _listen(stack, app, one, context)
            check = SelfCheck(f"listener {one.address}", where, context)
            doors.append(Door(one, listener, members, identity, check, port=where[1]))
        if config.metrics.listen is not None:
            app = web.Application()
            app.router.add_get("/metrics", seeing.page)
            await _listen(stack, app, Listen(address=config.metrics.listen), None)
        yield Served(doors, hub, scheduler)


async def _listen(
    stack: AsyncExitStack, app: web.Application, address: Listen, context: ssl.SSLContext | None
) -> tuple[Listener, tuple[str, int]]:
    runner = made(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listener = Listener(runner)
    try:
        where = await listener.open(address.host, address.port, context)
    except OSError as error:
        raise CoordinatorError(
            "FF-COORD-013",
            f"cannot listen on {address.address}: {error.strerror}",
            hint="is another program, or another coordinator, using it? `ss -ltnp` shows who listens",
        ) from error
    stack.push_async_callback(listener.close)
    return listener, where


def _noting(contacts: Contacts, callers: Callers) -> Middleware:
    """Every call of a member is a contact: it enrols a new one, and shows the operator when each was last there."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(FEDERATION):
            with suppress(TrustError, RefusedError):  # the handler refuses it
                caller = callers.peer(request)
                if caller.role == "gateway":
                    await contacts.seen(caller)
        return await handler(request)

    return note
