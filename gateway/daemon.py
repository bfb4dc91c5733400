"""The day of the gateway, from top to bottom.

Predictions are served before any machine answers, machines are read whether or not the coordinator can be reached, and what learns
lives in worker processes. One failure of the outside world ends none of this; a defect of the daemon itself ends all of it, loudly.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import structlog

from common.clock import Clock
from common.reload import Reload
from common.selfcheck import SelfCheck
from common.service import leave_within, notify, one_cause, reload_signal, stop_signal, unless
from common.watchdog import Pulse, Watchdog, deadline_s, last_hang
from gateway import changes
from gateway.config import Config
from gateway.inference import InferenceServer, Recorder, Shelf, control
from gateway.inference.tls import context
from gateway.membership import Membership
from gateway.modelstore import ModelStore
from gateway.opening import Opening, make
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.seeing import logs
from gateway.seeing.overview import Seeing
from gateway.status import Status
from gateway.store import Store
from gateway.store.metrics import StoreMetrics
from gateway.store.upkeep import Upkeep
from gateway.workers import WorkerPool

log = structlog.get_logger()


def run(config: Config, load: Callable[[], Config]) -> None:
    """Serve, read and learn until SIGTERM or SIGINT; at SIGHUP go over to what ``load`` gives.

    Raises the first FedfabError that ended the day early.
    """
    faulthandler.enable()  # systemd ends with SIGABRT what hangs
    asyncio.run(_day(config, load))


async def _day(config: Config, load: Callable[[], Config]) -> None:
    stop, hang_up = stop_signal(), reload_signal()
    data = config.gateway.data_dir
    make(data)
    task_logs, hung = logs.start(config), last_hang(data)
    async with one_cause(), AsyncExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(deadline_s(config.service.watchdog_s), data))

        # serve the models last in use, whatever the disk says
        models = ModelStore(data / "models")
        opening, writing = Opening(lambda: Store.open(config.gateway.store)), Pulse("results")
        recorder = Recorder(writing.during("write results", opening.append_results))
        status: Callable[[], Awaitable[Mapping[str, object]]] = opening.status

        async def tell() -> Mapping[str, object]:
            return await status()

        server = InferenceServer(
            Shelf(models),
            ends=config.schemas,
            latest=opening.latest,
            at_hand=opening.latest_at_hand,
            recorder=recorder,
            status=tell,
            settings=config.inference,
            trust=config.trust,
            control_socket=control.path(data),
        )
        seeing = Seeing(config, task_logs)  # box and alerts from now on, the other parts once they are there
        seeing.show(server)
        tls = context(config.inference, config.trust)
        check = SelfCheck("inference", await server.start(config.inference.host, config.inference.port, tls), tls)
        stack.push_async_callback(server.close)

        # open what keeps
        store = await unless(stop, opening.opened())
        if store is None:
            return
        stack.enter_context(store)
        pool = await stack.enter_async_context(WorkerPool.of(config))
        upkeep = Upkeep(store, config.store, list(config.schemas))
        runtime = Runtime(config, store)
        programs = Programs(config, folder=data / "checkpoints", models=models, pool=pool)
        member = Membership(config, programs)
        seeing.look_at(store=store, runtime=runtime, models=models, programs=programs, pool=pool)
        seeing.add("store", StoreMetrics(store, upkeep))
        seeing.add("federation", member.meter)
        seeing.add_buffers("federation", member.meter.buffers)
        clock = Clock()
        takers = changes.parts(
            server=server,
            check=check,
            member=member,
            upkeep=upkeep,
            runtime=runtime,
            programs=programs,
            seeing=seeing,
            task_logs=task_logs,
        )
        reload = Reload(config, load, takers)
        status = Status(reload, store, runtime, models, programs, seeing, clock, hung)
        watchdog.watch(runtime.storing, runtime.preparing, writing, check.pulse, member.meter.polling)

        async with asyncio.TaskGroup() as day:
            # read machines, learn with the others, watch over both
            day.create_task(recorder.run(), name="results")
            going = [
                day.create_task(runtime.run(), name="sources"),
                day.create_task(upkeep.run(), name="upkeep"),
                day.create_task(member.run(), name="federation"),
                day.create_task(seeing.run(), name="alerts"),
                day.create_task(check.run(), name="self-check"),
                day.create_task(clock.run(), name="clock"),
                day.create_task(reload.run(hang_up), name="reload"),
            ]
            notify("READY=1")
            log.info("gateway runs", name=config.gateway.name, pid=os.getpid())

            # leave in good order: take no more work, answer what was asked, keep what came
            await stop.wait()
            notify("STOPPING=1")
            log.info("gateway stops")
            leave_within(reload.config.service.stop_s)
            for task in going:
                task.cancel()
            await server.close()
            await recorder.close()
    log.info("gateway stopped")
