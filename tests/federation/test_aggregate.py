"""Aggregation over learners in one process: order, quorum, deadlines, convergence, checkpoints."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from federation import progress
from federation.aggregate import aggregate
from federation.checkpoint import Checkpoint
from federation.cluster import Cluster
from federation.errors import FederationError, QuorumError
from federation.rounds import RoundReport
from models.learner import Description, Params, Update
from models.schema import FieldSpec, Schema
from models.spec import PrivacySpec, RoundsSpec, TaskSpec
from privacy import dp
from tests.federation.learners import SCHEMA, Line

NAMES = ["end-1", "end-2", "end-3", "end-4"]


def spec(**rounds: object) -> TaskSpec:
    return TaskSpec(name="wear", rounds=RoundsSpec.model_validate({"max": 3, "deadline_s": 5} | rounds))


def same(one: Params, other: Params) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(value, other[name]) for name, value in one.items())


class Shuffled(Line):
    """Answers after as many turns of the loop as it is told, differently in every round."""

    def __init__(self, spec: TaskSpec, name: str, order: random.Random) -> None:
        super().__init__(spec, name)
        self.order = order

    async def fit(self, round_: int, params: Params) -> Update:
        for _ in range(self.order.randrange(20)):
            await asyncio.sleep(0)
        return await super().fit(round_, params)


class Silent(Line):
    """Never answers after the first round."""

    async def fit(self, round_: int, params: Params) -> Update:
        if round_ > 1:
            await asyncio.Event().wait()
        return await super().fit(round_, params)


class Slow(Line):
    """Takes several deadlines for a round, and says that it goes on."""

    async def fit(self, round_: int, params: Params) -> Update:
        for _ in range(6):
            await asyncio.sleep(self.spec.rounds.deadline_s / 2)
            progress.tick()
        return await super().fit(round_, params)


class Broken(Line):
    """Fails with an error that is nobody's."""

    async def fit(self, round_: int, params: Params) -> Update:
        raise ZeroDivisionError("no labels")


class Diverged(Line):
    """Answers with what is no number."""

    async def fit(self, round_: int, params: Params) -> Update:
        update = await super().fit(round_, params)
        update.params["head/0.bias"][:] = np.nan
        return update


@pytest.mark.clause("8.8")
async def test_the_order_of_arrival_changes_no_bit() -> None:
    outcomes = [
        await aggregate(
            spec(), [Shuffled(spec(), name, random.Random(f"{seed}{name}")) for name in names], name="x", layer="cloud"
        )
        for seed, names in enumerate([NAMES, NAMES[::-1], NAMES])
    ]
    assert all(same(outcomes[0].params, other.params) for other in outcomes[1:])
    assert len({str([report.metrics for report in outcome.reports]) for outcome in outcomes}) == 1


@pytest.mark.clause("8.8")
async def test_the_mean_is_weighted_by_samples() -> None:
    small, large = Line(spec(max=1), "end-1", samples=10), Line(spec(max=1), "end-2", samples=30)
    outcome = await aggregate(spec(max=1), [small, large], name="x", layer="cluster")
    expected = (10 * 0.5 * small.labels.mean() + 30 * 0.5 * large.labels.mean()) / 40
    start = (await _initial_bias(small)) / 2
    assert outcome.params["head/0.bias"][0] == pytest.approx(start + expected, abs=1e-6)


async def _initial_bias(end: Line) -> float:
    from models.parameters import initial

    return float(initial(end.spec, [SCHEMA])["head/0.bias"][0])


@pytest.mark.clause("8.9")
async def test_stops_at_the_set_number_of_rounds() -> None:
    outcome = await aggregate(spec(max=4), [Line(spec(), name) for name in NAMES], name="x", layer="cluster")
    assert (outcome.rounds, outcome.converged) == (4, False)
    assert [(report.round, report.final) for report in outcome.reports] == [
        *((r, False) for r in (1, 2, 3, 4)),
        (4, True),
    ]


@pytest.mark.clause("8.9")
async def test_stops_when_converged() -> None:
    task = spec(max=50, tolerance=0.01, patience=2)
    outcome = await aggregate(task, [Line(task, name) for name in NAMES], name="x", layer="cluster")
    losses = [report.metrics["loss"] for report in outcome.reports if not report.final]
    assert outcome.converged
    assert 2 < outcome.rounds < 50
    assert all(later > min(losses[:-2]) * 0.99 for later in losses[-2:])


@pytest.mark.clause("8.5.2")
async def test_everyone_starts_from_the_same_model() -> None:
    seen: list[Params] = []

    class Watched(Line):
        async def fit(self, round_: int, params: Params) -> Update:
            seen.append(params)
            return await super().fit(round_, params)

    await aggregate(spec(max=1), [Watched(spec(), name) for name in NAMES], name="x", layer="cluster")
    assert len(seen) == 4
    assert all(same(seen[0], other) for other in seen)


async def test_a_silent_member_is_left_out_after_the_deadline() -> None:
    task = spec(max=2, quorum=0.5, deadline_s=0.2)
    ends = [Line(task, "end-1"), Silent(task, "end-2")]
    outcome = await aggregate(task, ends, name="x", layer="cluster")
    assert [report.missing for report in outcome.reports] == [[], ["end-2"], []]
    assert outcome.reports[1].reasons["end-2"] == "no progress for 0.2 s"


async def test_a_slow_member_that_shows_progress_is_waited_for() -> None:
    task = spec(max=1, deadline_s=0.2)
    outcome = await aggregate(task, [Line(task, "end-1"), Slow(task, "end-2")], name="x", layer="cluster")
    assert outcome.reports[0].missing == []
    assert outcome.reports[0].seconds > 2 * 0.2


async def test_progress_reaches_the_deadline_through_a_cluster() -> None:
    task = spec(max=1, deadline_s=0.2)
    clusters = [Cluster(task, "presses", [Slow(task, "end-2")]), Cluster(task, "pumps", [Line(task, "end-1")])]
    assert (await aggregate(task, clusters, name="x", layer="cloud")).reports[0].missing == []


class Away(Line):
    """Answers nothing until it is told that it is back."""

    def __init__(self, spec: TaskSpec, name: str, schema: Schema = SCHEMA) -> None:
        super().__init__(spec, name, schema)
        self.back = asyncio.Event()

    async def describe(self) -> Description:
        await self.back.wait()
        return await super().describe()

    async def fit(self, round_: int, params: Params) -> Update:
        await self.back.wait()
        return await super().fit(round_, params)


async def test_a_silent_member_that_the_quorum_needs_is_waited_for() -> None:
    task = spec(max=2, deadline_s=0.1, wait_s=30)
    away = Away(task, "end-2")
    running = asyncio.create_task(aggregate(task, [Line(task, "end-1"), away], name="x", layer="cluster"))
    await asyncio.sleep(0.4)
    assert not running.done()
    away.back.set()
    assert [report.missing for report in (await running).reports] == [[], [], []]
    assert away.fitted == [1, 2]


async def test_waiting_for_the_quorum_has_an_end() -> None:
    task = spec(max=2, deadline_s=0.1, wait_s=0.2)
    with pytest.raises(QuorumError, match=r"1 of 2 members answered.*end-2: no progress for 0.1 s"):
        await aggregate(task, [Line(task, "end-1"), Away(task, "end-2")], name="x", layer="cluster")


async def test_nobody_is_waited_for_where_the_quorum_is_lost_already() -> None:
    task = spec(max=2, deadline_s=0.1, wait_s=3600)
    ends = [Broken(task, "end-1"), Silent(task, "end-2"), Line(task, "end-3")]
    first = spec(max=1, deadline_s=0.1, quorum=0.5)
    await aggregate(first, [Line(first, "end-3")], name="x", layer="cluster")
    with pytest.raises(QuorumError, match=r"2 of 3 members answered.*ZeroDivisionError"):
        await aggregate(task, ends, name="x", layer="cluster")


@pytest.mark.parametrize("schema", ["the same", "another"])
async def test_a_member_that_comes_late_joins_in_the_next_round(schema: str, tmp_path: Path) -> None:
    """It gets the place in the model that it would have had from the start, whatever its sensors."""
    own = SCHEMA if schema == "the same" else OTHER
    task = spec(max=5, quorum=0.5, deadline_s=0.1)
    late = Away(task, "end-2", own)
    checkpoint = Checkpoint(tmp_path)
    joined: list[list[str]] = []

    async def observe(report: RoundReport) -> None:
        joined.append(report.missing)
        if report.round == 2:
            late.back.set()

    outcome = await aggregate(
        task, [Line(task, "end-1"), late], name="x", layer="cloud", checkpoint=checkpoint, observe=observe
    )
    assert joined[0] == joined[1] == ["end-2"]
    assert joined[-1] == joined[-2] == []
    assert late.fitted
    assert late.fitted[0] > 2
    assert own.digest() in outcome.schemas
    from models.parameters import encoder, initial

    assert all(outcome.params[name].shape == value.shape for name, value in initial(task, [SCHEMA, own]).items())
    assert any(name.startswith(encoder(own)) for name in outcome.params)


async def test_each_round_asks_a_fair_share() -> None:
    """A third of seven members: three a round, nobody twice more than another, and the same ones under the same seed."""
    task = spec(max=14, fraction=0.4)
    names = [f"end-{number}" for number in range(7)]

    async def asked(seed: int) -> list[list[str]]:
        seeded = task.model_copy(update={"seed": seed})
        ends = [Line(seeded, name) for name in names]
        outcome = await aggregate(seeded, ends, name="x", layer="cluster")
        for end in ends:
            assert end.fitted == [r.round for r in outcome.reports if end.name in r.asked]
        return [report.asked for report in outcome.reports if not report.final]

    rounds = await asked(1)
    assert {len(names) for names in rounds} == {3}
    for upto in range(1, len(rounds)):
        counts = [sum(name in one for one in rounds[:upto]) for name in names]
        assert max(counts) - min(counts) <= 1
    assert rounds == await asked(1)
    assert rounds != await asked(2)


async def test_a_crash_changes_nothing_in_who_is_asked(tmp_path: Path) -> None:
    task = spec(max=6, fraction=0.5)
    undisturbed = await aggregate(task, [Line(task, name) for name in NAMES], name="x", layer="cluster")

    async def observe(report: RoundReport) -> None:
        if report.round == 3:
            raise PulledPlugError

    ends = [Line(task, name) for name in NAMES]
    with pytest.raises(PulledPlugError):
        await aggregate(task, ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path), observe=observe)
    outcome = await aggregate(task, ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path))
    assert same(outcome.params, undisturbed.params)
    assert [report.asked for report in outcome.reports] == [report.asked for report in undisturbed.reports]


async def test_it_goes_on_from_a_round_finished_elsewhere_until_told() -> None:
    """What a gateway does while its aggregator is away: two rounds behind the fifth of somebody else's."""
    task = spec(max=50)
    other = await aggregate(spec(max=5), [Line(task, name) for name in NAMES], name="x", layer="cluster")
    enough = asyncio.Event()

    async def observe(report: RoundReport) -> None:
        if report.round == 7:
            enough.set()

    ends = [Line(task, name) for name in NAMES]
    outcome = await aggregate(
        task, ends, name="x", layer="cluster", observe=observe, start=(5, other.params), enough=enough
    )
    assert ends[0].fitted[:2] == [6, 7]
    assert outcome.rounds < 10
    whole = await aggregate(spec(max=outcome.rounds), [Line(task, name) for name in NAMES], name="x", layer="cluster")
    assert same(outcome.params, whole.params)


async def test_a_report_says_who_was_slow_and_why() -> None:
    class Busy(Line):
        async def fit(self, round_: int, params: Params) -> Update:
            await asyncio.sleep(0.05)
            return dataclasses.replace(await super().fit(round_, params), report={"seconds": 0.01})

    task = spec(max=1)
    outcome = await aggregate(task, [Line(task, "end-1"), Busy(task, "end-2")], name="x", layer="cluster")
    report = RoundReport.from_json(outcome.reports[0].to_json())
    timing = report.timing["end-2"]
    assert set(report.timing) == {"end-1", "end-2"}
    assert timing["total"] >= 0.05
    assert timing["wait"] == pytest.approx(timing["total"] - 0.01)
    assert report.slowest.startswith("end-2 0.0")
    assert ", wait 0.0" in report.slowest


@pytest.mark.clause("8.7.2")
async def test_reports_say_how_much_privacy_was_spent() -> None:
    private = spec().model_copy(update={"privacy": PrivacySpec(clip_norm=1.0, noise_multiplier=2.0)})
    outcome = await aggregate(private, [Line(private, "end-1")], name="x", layer="cluster")
    spent = [report.epsilon for report in outcome.reports]
    assert spent == [pytest.approx(dp.epsilon(2.0, updates, 1e-5)) for updates in (1, 2, 3, 3)]
    public = await aggregate(spec(), [Line(spec(), "end-1")], name="x", layer="cluster")
    assert {report.epsilon for report in public.reports} == {None}


@pytest.mark.parametrize(("kind", "reason"), [(Broken, "ZeroDivisionError: no labels"), (Diverged, "FF-MODEL-007")])
async def test_one_failing_member_does_not_end_the_round(kind: type[Line], reason: str) -> None:
    task = spec(max=1, quorum=0.5)
    others = [Line(task, "end-1"), Line(task, "end-3")]
    outcome = await aggregate(task, [*others, kind(task, "end-2")], name="x", layer="cluster")
    assert outcome.reports[0].missing == ["end-2"]
    assert reason in outcome.reports[0].reasons["end-2"]
    assert same(outcome.params, (await aggregate(task, others, name="x", layer="cluster")).params) is False
    assert np.isfinite(outcome.params["head/0.bias"]).all()


async def test_without_a_quorum_it_ends_and_says_who_is_missing() -> None:
    task = spec(quorum=0.8)
    with pytest.raises(QuorumError, match=r"1 of 2 members answered, 2 are needed.*end-2: ZeroDivisionError"):
        await aggregate(task, [Line(task, "end-1"), Broken(task, "end-2")], name="x", layer="cluster")


@pytest.mark.parametrize("names", [[], ["end-1", "end-1"]])
async def test_members_have_names_of_their_own(names: list[str]) -> None:
    with pytest.raises(FederationError, match="FF-FED-030"):
        await aggregate(spec(), [Line(spec(), name) for name in names], name="x", layer="cluster")


class PulledPlugError(Exception):
    """The process ends here, as far as the program can tell."""


@pytest.mark.clause("9.4.3l")
@pytest.mark.parametrize("stop", [1, 2, 3])
async def test_after_a_crash_it_goes_on_to_the_same_bits(tmp_path: Path, stop: int) -> None:
    undisturbed = await aggregate(spec(), [Line(spec(), name) for name in NAMES], name="x", layer="cluster")

    async def observe(report: RoundReport) -> None:
        if report.round == stop:
            raise PulledPlugError

    ends = [Line(spec(), name) for name in NAMES]
    with pytest.raises(PulledPlugError):
        await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path), observe=observe)
    outcome = await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path))
    assert same(outcome.params, undisturbed.params)
    assert [report.metrics for report in outcome.reports] == [report.metrics for report in undisturbed.reports]
    assert [ends[0].fitted.count(number) for number in range(1, stop + 1)] == [1] * stop  # what was durable, once


async def test_the_round_before_a_crash_is_reported_and_only_what_is_durable_is(tmp_path: Path) -> None:
    told: list[int] = []

    class Unsaved(Checkpoint):
        async def save(self, state: dict[str, object], params: Params) -> None:
            if state["round"] == 2:
                raise PulledPlugError
            await super().save(state, params)

    async def observe(report: RoundReport) -> None:
        told.append(report.round)

    ends = [Line(spec(), name) for name in NAMES]
    with pytest.raises(PulledPlugError):
        await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=Unsaved(tmp_path), observe=observe)
    assert told == [1]
    await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path), observe=observe)
    assert told == [1, 1, 2, 3, 3], "the last durable one again, since the crash may have come before it was told"


async def test_a_finished_task_is_not_trained_again(tmp_path: Path) -> None:
    checkpoint, ends = Checkpoint(tmp_path), [Line(spec(), name) for name in NAMES]
    first = await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=checkpoint)
    again = await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=checkpoint)
    assert same(first.params, again.params)
    assert again.finished == first.finished
    assert ends[0].fitted == [1, 2, 3]


async def test_a_checkpoint_of_another_specification_is_refused(tmp_path: Path) -> None:
    ends = [Line(spec(), name) for name in NAMES]
    await aggregate(spec(), ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path))
    with pytest.raises(FederationError, match="FF-FED-041"):
        await aggregate(spec(max=9), ends, name="x", layer="cluster", checkpoint=Checkpoint(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"garbage that is no checkpoint", b"\0\0\0\0\0\0\0\x02{}" + b"torn"])
async def test_a_broken_checkpoint_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "checkpoint").write_bytes(damage)
    with pytest.raises(FederationError, match=f"FF-FED-040: {tmp_path}"):
        await Checkpoint(tmp_path).load()


OTHER = Schema(fields=(*SCHEMA.fields, FieldSpec(name="heat", unit="C")), label=SCHEMA.label)
OTHER_UNIT = Schema(fields=(SCHEMA.fields[0], FieldSpec(name="load", unit="kN")), label=SCHEMA.label)
OTHER_LABEL = Schema(fields=SCHEMA.fields, label=FieldSpec(name="wear", unit="mm"))


@pytest.mark.clause("5.3")
@pytest.mark.parametrize(
    ("schema", "named"), [(OTHER, 'field "heat"'), (OTHER_UNIT, 'field "load": unit is "kN"'), (OTHER_LABEL, '"mm"')]
)
async def test_an_end_of_another_schema_is_refused_from_the_cluster(schema: Schema, named: str) -> None:
    task = spec(max=2, quorum=0.6)
    good = [Line(task, "end-1"), Line(task, "end-2")]
    cluster = Cluster(task, "presses", [*good, Line(task, "end-3", schema)])
    outcome = await aggregate(task, [cluster], name="x", layer="cloud")
    assert set(outcome.per_end) == {"presses/end-1", "presses/end-2"}
    strict = task.model_copy(update={"rounds": RoundsSpec(quorum=1.0)})
    with pytest.raises(QuorumError, match=f"end-3: .*{named}"):
        await aggregate(strict, [*good, Line(task, "end-3", schema)], name="x", layer="cluster")


@pytest.mark.clause("5.1")
@pytest.mark.clause("5.5")
async def test_two_layers_share_what_unlike_plants_have_in_common() -> None:
    """Two clusters of other sensors: each its own encoder, averaged in the cluster; trunk and head averaged in the cloud."""
    task = spec(max=2, cluster=2)
    reports: list[RoundReport] = []

    async def observe(report: RoundReport) -> None:
        reports.append(report)

    presses = Cluster(task, "presses", [Line(task, "p-1"), Line(task, "p-2")], observe=observe)
    pumps = Cluster(task, "pumps", [Line(task, "q-1", OTHER), Line(task, "q-2", OTHER)], observe=observe)
    outcome = await aggregate(task, [presses, pumps], name="cloud", layer="cloud", observe=observe)
    assert sorted((report.layer, report.name, report.round) for report in reports if not report.final) == [
        *(("cloud", "cloud", number) for number in (1, 2)),
        *(("cluster", "presses", number) for number in (1, 2, 3, 4)),
        *(("cluster", "pumps", number) for number in (1, 2, 3, 4)),
    ]
    scopes = {name.split("/")[0] for name in outcome.params}
    assert {f"encoder@{SCHEMA.digest()}", f"encoder@{OTHER.digest()}", "trunk", "head"} <= scopes
    assert set(outcome.per_end) == {"presses/p-1", "presses/p-2", "pumps/q-1", "pumps/q-2"}

    alone = await aggregate(
        task, [Cluster(task, "presses", [Line(task, "p-1"), Line(task, "p-2")])], name="x", layer="cloud"
    )
    assert not np.array_equal(alone.params["head/0.bias"], outcome.params["head/0.bias"])  # the pumps had their say


async def test_a_cluster_answers_with_what_its_ends_hold_only() -> None:
    task = spec()
    cluster = Cluster(task, "presses", [Line(task, "p-1"), Line(task, "p-2")])
    from models.parameters import initial

    update = await cluster.fit(1, initial(task, [SCHEMA, OTHER]))
    assert not any(OTHER.digest() in name for name in update.params)
    assert update.samples == 40
    assert set(update.before) == {"p-1", "p-2"}


async def test_finish_is_everyone_s_or_the_cluster_s_own() -> None:
    async def promote(params: Params) -> Mapping[str, object]:
        return {"version": 7}

    ends = [Line(spec(), "p-1"), Line(spec(), "p-2")]
    assert await Cluster(spec(), "presses", ends).finish({}) == {"p-1": {"promoted": True}, "p-2": {"promoted": True}}
    assert await Cluster(spec(), "presses", ends, finish=promote).finish({}) == {"version": 7}
