"""The day of the gateway, from top to bottom.

Predictions are served before any machine answers, machines are read whether or not the coordinator can be reached, and what learns
lives in worker processes. One failure of the outside world ends none of this; a defect of the daemon itself ends all of it, loudly.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import structlog

from common.service import notify, one_cause, stop_signal
from federation.node import Node
from gateway.config import Config, Trust
from gateway.inference import InferenceServer, Recorder, Shelf, control
from gateway.inference.tls import context as inference_tls
from gateway.modelstore import ModelStore
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.status import Status
from gateway.store import Store
from gateway.workers import WorkerPool
from trust.identity import Identity, TrustStore

log = structlog.get_logger()

STOP_S = 30.0
"""Whatever hangs then is left: the store is whole at any moment."""
RETRY_S = 10.0
"""Before the federation is entered anew, after a failure that the node itself cannot bear, such as a full disk."""


def run(config: Config) -> None:
    """Serve, read and learn until SIGTERM or SIGINT. Raises the first FedfabError that ended the day early."""
    asyncio.run(_day(config))


async def _day(config: Config) -> None:
    stop = stop_signal()
    data = config.gateway.data_dir
    tls, member = inference_tls(config.inference, config.trust), _member(config)
    async with one_cause(), AsyncExitStack() as stack:
        # open what keeps
        store = stack.enter_context(Store.open(config.gateway.store))
        models = ModelStore(data / "models")
        pool = await stack.enter_async_context(WorkerPool.of(config))
        recorder = Recorder(store.append_results)
        runtime = Runtime(config, store)
        programs = Programs(config, folder=data / "checkpoints", models=models, pool=pool)

        # serve the models last in use
        server = InferenceServer(
            Shelf(models),
            ends={end.name: config.schema_of(end.cluster) for end in config.ends},
            latest=store.latest,
            recorder=recorder,
            status=Status(config, store, runtime, models, programs, recorder, pool),
            settings=config.inference,
            trust=config.trust,
            control_socket=control.path(data),
        )
        await server.start(config.inference.host, config.inference.port, tls)

        async with asyncio.TaskGroup() as day:
            # read machines, learn with the others
            day.create_task(recorder.run(), name="results")
            reading = day.create_task(runtime.run(), name="sources")
            learning = day.create_task(_learn(config, member, programs), name="federation")
            notify("READY=1")
            log.info("gateway runs", name=config.gateway.name, pid=os.getpid())

            # leave in good order: take no more work, answer what was asked, keep what came
            await stop.wait()
            notify("STOPPING=1")
            log.info("gateway stops")
            asyncio.get_running_loop().call_later(STOP_S, os._exit, 1)
            learning.cancel()
            reading.cancel()
            await server.close()
            await recorder.close()
    log.info("gateway stopped")


def _member(config: Config) -> tuple[Identity, TrustStore] | None:
    """Who this gateway is to the coordinator; None where it learns alone."""
    if config.coordinator is None:
        return None
    trust = config.trust or Trust()
    return Identity.load(trust.identity, trust.suite), TrustStore.load(trust.identity, trust.suite)


async def _learn(config: Config, member: tuple[Identity, TrustStore] | None, programs: Programs) -> None:
    """Be a member of the coordinator. Whatever goes wrong with that, reading and serving go on."""
    if config.coordinator is None or member is None:
        return
    identity, trust = member
    while True:
        try:
            async with Node.member(identity, trust, config.coordinator.url, config.gateway.data_dir) as node:
                await programs.run(node, trust)
        except Exception:
            log.exception("taking part in the federation failed, trying again", after_s=RETRY_S)
        await asyncio.sleep(RETRY_S)
