"""What no single section can know: names that refer to each other, units that must fit, ends that must share a schema (clause 5.3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from common.validation import Location, nearest
from gateway.config import Cluster, Config, End
from gateway.pipeline.units import conversion


class Problem(NamedTuple):
    """Something wrong, and the keys that lead to it in the file."""

    where: Location
    what: str


def problems(config: Config) -> Iterator[Problem]:
    """Everything in which valid sections contradict each other, in the order of the file."""
    if config.coordinator is not None and config.trust is None:
        yield Problem(("coordinator",), "a coordinator needs the section [trust]: with which key should it be joined?")
    for kind, items in (("source", config.sources), ("cluster", config.clusters), ("end", config.ends)):
        yield from _repeated((kind,), kind, [item.name for item in items])
    for i, cluster in enumerate(config.clusters):
        yield from _cluster(("cluster", i), cluster)
    for i, end in enumerate(config.ends):
        yield from _end(("end", i), config, end)


def suggestion(name: str, names: Iterable[str]) -> str:
    """`` (did you mean "x"?)``, or nothing where nothing is near."""
    near = nearest(name, names)
    return f' (did you mean "{near}"?)' if near else ""


def _repeated(where: Location, kind: str, names: Sequence[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield Problem((*where, i, "name"), f'there is another {kind} "{name}"; names must be unique')
        seen.add(name)


def _cluster(where: Location, cluster: Cluster) -> Iterator[Problem]:
    names = [field.name for field in cluster.fields]
    yield from _repeated((*where, "field"), "field", names)
    label = "field" if cluster.label.field else "remaining"
    uses: list[tuple[Location, str | None]] = [
        (("rows", "on_change"), cluster.rows.on_change),
        (("group",), cluster.group),
        (("label", label), cluster.label.source),
    ]
    for option, name in uses:
        if name is not None and name not in names:
            yield Problem((*where, *option), _unknown("field", name, names))
    if cluster.label.remaining and cluster.group is None:
        yield Problem((*where, "label"), '"remaining" needs the option group of the cluster: where does a run end?')
    inputs = {field.name for field in cluster.features}
    if not inputs:
        yield Problem((*where, "field"), 'no field has role = "feature": there is nothing to learn from')
    for name, use in ((cluster.label.field, "the label"), (cluster.group, "the group")):
        if name in inputs:
            yield Problem((*where, "field", names.index(name)), f'expected role = "aux", because it is {use}')


def _end(where: Location, config: Config, end: End) -> Iterator[Problem]:
    clusters = [cluster.name for cluster in config.clusters]
    if end.cluster not in clusters:
        yield Problem((*where, "cluster"), _unknown("cluster", end.cluster, clusters))
        return
    cluster = config.cluster(end.cluster)
    fields = {field.name: field for field in cluster.fields}
    for name in fields:
        if name not in end.tags:
            text = f'field "{name}" of cluster "{cluster.name}" has no tag; ends of a cluster have all its fields'
            yield Problem((*where, "tags"), text)
    for name, reference in end.tags.items():
        here = (*where, "tags", name)
        if name not in fields:
            yield Problem(here, f'cluster "{cluster.name}" has no field "{name}"{suggestion(name, fields)}')
            continue
        source_name, _, tag = reference.partition("/")
        sources = {source.name: source for source in config.sources}
        if source_name not in sources:
            yield Problem(here, _unknown("source", source_name, sources))
            continue
        units = sources[source_name].tag_units()
        if tag not in units:
            yield Problem(here, f'source "{source_name}" has no tag "{tag}"{suggestion(tag, units)}')
        elif conversion(units[tag], fields[name].unit) is None:
            text = f'field "{name}" of cluster "{cluster.name}" is in {_unit(fields[name].unit)}, but tag "{reference}" is in '
            yield Problem(here, f"{text}{_unit(units[tag])}, which cannot be converted")


def _unit(unit: str) -> str:
    return f'"{unit}"' if unit else "no unit"


def _unknown(kind: str, name: str, names: Collection[str]) -> str:
    known = suggestion(name, names) or f"; known: {', '.join(sorted(names)) or 'none'}"
    return f'there is no {kind} "{name}"{known}'
