"""The cloud goes away in the middle of a training: the plants train on, and rejoin when it is back."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.configfile import load
from gateway.inference.client import status
from gateway.modelstore import Evidence, ModelStore
from tests.chaos.works import GATEWAYS, Works, patient, spec, until


@pytest.mark.e2e
@pytest.mark.clause("5.4")
async def test_plants_train_on_while_the_cloud_is_away_and_rejoin(tmp_path: Path) -> None:
    """What the gateways learn meanwhile is served where it is better; the federated model is that of an undisturbed run."""
    works = Works(tmp_path)
    async with asyncio.timeout(300), works.running() as client:
        calm = await works.train(client, spec(seed=1, max=4))
        expected = await calm.digest()

        task = await patient(lambda: client.submit(spec(seed=1, max=4, autonomy_s=1.0)))
        async for event in client.events(task.id):
            if event.kind == "round" and event.body["layer"] == "cloud":
                break
        works.cloud.switch(on=False)
        works.cloud.signal(signal.SIGKILL)
        config = load(tmp_path / "gateway-a" / "gateway.toml")

        async def shown() -> dict[str, Any]:
            tasks = (await asyncio.to_thread(status, config))["tasks"]
            return next(each for each in tasks if each["task"] == task.id)

        def made() -> list[Evidence]:
            store = ModelStore(config.gateway.data_dir / "models")
            return [store.evidence("wear-spindles", version) for version in store.versions("wear-spindles")]

        async def training_alone() -> bool:
            task = await shown()
            return task["alone"] and "spindles alone" in task["groups"]

        async def interim_made() -> bool:
            return any(one.autonomous for one in made())

        await until(training_alone)
        await until(interim_made)
        works.cloud.switch(on=True)
        done = await works.finished(client, task.id)
        assert done.state == "finished", done.reason
        assert not (await shown())["alone"]
        model = next(model for model in await client.models("wear") if model.task == task.id)
        assert model.digest == expected

        reports = [event.body async for event in client.events(task.id) if event.kind == "round"]
        alone = [report for report in reports if report["autonomous"]]
        assert {report["member"] for report in alone} <= set(GATEWAYS)
        assert alone
        assert [r["round"] for r in reports if r["layer"] == "cloud"] == [1, 2, 3, 4, 4]
        interim = [one for one in made() if one.autonomous]
        assert {one.task_id for one in interim} == {task.id}
        assert all(one.promoted == one.verdict.startswith("promoted") for one in interim)
        assert not made()[-1].autonomous, "the federated model came last"
