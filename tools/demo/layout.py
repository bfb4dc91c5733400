"""The demo's folder: keys and certificates, and the configuration files that a plant would write by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from common.files import write_atomic
from models.spec import Layer, TaskSpec
from tools.demo.scenario import ClusterPlan, EndPlan, Scenario
from tools.plant.modbus import address
from tools.plant.physics import COUNTERS
from trust import pki
from trust.keys import SuiteName

COORDINATOR = "cloud"
OPERATOR = "operator"
LAYERS: dict[Layer, str] = {"end": "life-alone", "cluster": "life-cluster", "cloud": "life"}
"""The three tasks of a demo, by how far they go; the models are named ``<task>-<end or cluster>``."""

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is."""

    folder: Path
    scenario: Scenario
    suite: SuiteName
    ports: Mapping[str, int]
    """Of the coordinator, of each gateway's inference, of the plant's opcua and modbus."""

    @property
    def coordinator_url(self) -> str:
        """Where gateways and operators dial."""
        return f"https://{_HOST}:{self.ports[COORDINATOR]}"

    def inference_url(self, gateway: str) -> str:
        """Where a gateway answers predictions."""
        return f"http://{_HOST}:{self.ports[gateway]}"

    def identity(self, name: str) -> Path:
        """A participant's keys."""
        return self.folder / "pki" / "issued" / name

    def config(self, name: str) -> Path:
        """A process's configuration file."""
        return self.folder / f"{name}.toml"

    def task(self, layer: Layer) -> Path:
        """A task's file."""
        return self.folder / f"task-{layer}.toml"

    def spec(self, layer: Layer) -> TaskSpec:
        """The task of this layer; all three train for the same number of epochs."""
        return self.scenario.spec.model_copy(update={"name": LAYERS[layer], "layer": layer})

    def store(self, gateway: str) -> Path:
        """A gateway's feature store."""
        return self.folder / gateway / "store.db"

    def models(self, gateway: str) -> Path:
        """A gateway's models."""
        return self.folder / gateway / "models"

    @property
    def first_ports(self) -> tuple[int, ...]:
        """Where somebody listens before a gateway is started: the coordinator and the plant."""
        served = {end.serve for end in self.scenario.ends} - {"sql"}
        return (self.ports[COORDINATOR], *(self.ports[protocol] for protocol in sorted(served)))

    @property
    def logs(self) -> Path:
        """Folder of all logs."""
        return self.folder / "logs"


def make(folder: Path, scenario: Scenario, suite: SuiteName) -> Layout:
    """Fill an empty folder with everything the processes need."""
    names = (COORDINATOR, *scenario.gateways, "opcua", "modbus")
    layout = Layout(folder, scenario, suite, dict(zip(names, _free_ports(len(names)), strict=True)))
    _pki(layout)
    _write(layout.config("plant"), _plant(layout))
    _write(layout.config("coordinator"), _coordinator(layout))
    for gateway in scenario.gateways:
        _write(layout.config(gateway), _gateway(layout, gateway))
    for layer in LAYERS:
        _write(layout.task(layer), _task(layout.spec(layer)))
    for path, data in scenario.files.items():
        write_atomic(folder / path, data)
    return layout


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def _pki(layout: Layout) -> None:
    folder = layout.folder / "pki"
    pki.init(folder, [layout.suite], "demo")
    pki.issue(folder, pki.Request(COORDINATOR, "coordinator", "cloud", [_HOST, "localhost"]))
    pki.issue(folder, pki.Request(OPERATOR, "operator", "cloud"))
    for gateway in layout.scenario.gateways:
        pki.issue(folder, pki.Request(gateway, "gateway", gateway, [_HOST, "localhost"]))


def _plant(layout: Layout) -> str:
    head = f"""\
# The simulated plant: {layout.scenario.about}

[plant]
seed = {layout.scenario.spec.seed}
tick_s = {layout.scenario.tick_s}            # one cycle of every machine
wait_for_readers = true

[opcua]
endpoint = "{_opcua(layout)}"

[modbus]
port = {layout.ports["modbus"]}

[sql]
url = "sqlite:///{_historian(layout)}"
"""
    return "\n".join([head, *(end.machine for end in layout.scenario.ends)])


def _coordinator(layout: Layout) -> str:
    return f"""\
# The coordinator: aggregates the gateways, keeps tasks and models. It never sees a row.

[coordinator]
name = "{COORDINATOR}"
data_dir = "{COORDINATOR}"

[trust]
identity = "{layout.identity(COORDINATOR).relative_to(layout.folder)}"

[[listen]]
address = "{_HOST}:{layout.ports[COORDINATOR]}"
suite = "{layout.suite}"
"""


def _gateway(layout: Layout, name: str) -> str:
    ends = layout.scenario.ends_at(name)
    clusters = [cluster for cluster in layout.scenario.clusters if cluster.gateway == name]
    head = f"""\
# Edge gateway {name}: reads its machines, trains each of them, aggregates its cluster, answers predictions.
# fedfab gateway check -c {name}.toml --probe     reads one value of every tag

[gateway]
name = "{name}"
data_dir = "{name}"

[trust]
identity = "{layout.identity(name).relative_to(layout.folder)}"
suite = "{layout.suite}"

[coordinator]
url = "{layout.coordinator_url}"

[inference]
listen = "{_HOST}:{layout.ports[name]}"

[workers]
processes = 1
"""
    blocks = [head, *_sources(layout, ends), *map(_cluster, clusters), *(_end(layout, end) for end in ends)]
    return "\n".join(blocks)


def _sources(layout: Layout, ends: tuple[EndPlan, ...]) -> list[str]:
    """One OPC UA and one Modbus source for all machines there, one SQL source for each table."""
    blocks = []
    for protocol in ("opcua", "modbus"):
        served = [end for end in ends if end.serve == protocol]
        if served:
            head = _opcua_source(layout) if protocol == "opcua" else _modbus_source(layout)
            blocks.append("\n".join([head, *(_tags(layout, end) for end in served)]))
    blocks += [_sql_source(layout, end) + "\n" + _tags(layout, end) for end in ends if end.serve == "sql"]
    return blocks


def _opcua_source(layout: Layout) -> str:
    return f"""\
[[source]]
name = "opcua"
type = "opcua"
endpoint = "{_opcua(layout)}"
publishing_s = 0.2
sampling_s = 0.0                # every change counts
queue_size = 1000
"""


def _modbus_source(layout: Layout) -> str:
    return f"""\
[[source]]
name = "modbus"
type = "modbus"
host = "{_HOST}"
port = {layout.ports["modbus"]}
every_s = {layout.scenario.tick_s / 2}              # twice as often as there is a new cycle
silent_unit_s = 0.1
"""


def _sql_source(layout: Layout, end: EndPlan) -> str:
    return f"""\
[[source]]
name = "{_source_of(end)}"
type = "sql"
url = "sqlite:///{_historian(layout)}"
table = "{end.name.replace("-", "_")}"
cursor = "id"
time = "time_us"
time_unit = "us"
every_s = 0.2
"""


def _tags(layout: Layout, end: EndPlan) -> str:
    fields = layout.scenario.cluster(end.cluster).fields
    blocks = []
    for name in (*fields, *COUNTERS):
        counter = name in COUNTERS
        if end.serve == "opcua":
            place = f'node = "ns=2;s={end.name}.{name}"'
        elif end.serve == "sql":
            place = f'column = "{name}"'
        else:
            register = 2 * COUNTERS.index(name) if counter else address(end.served.index(name))
            place = f'unit_id = {end.unit}\naddress = {register}\ntype = "{"u32" if counter else "f32"}"'
        unit = f'\nunit = "{fields[name]}"' if fields.get(name) else ""
        blocks.append(f'[[source.tag]]\nname = "{_tag(end, name)}"\n{place}{unit}\n')
    return "\n".join(blocks)


def _cluster(cluster: ClusterPlan) -> str:
    fields = []
    for name, unit in cluster.fields.items():
        limits = cluster.limits.get(name)
        text = f'[[cluster.field]]\nname = "{name}"\n' + (f'unit = "{unit}"\n' if unit else "")
        fields.append(text + (f"min = {float(limits[0])}\nmax = {float(limits[1])}\n" if limits else ""))
    counters = [f'[[cluster.field]]\nname = "{name}"\nrole = "aux"\n' for name in COUNTERS]
    head = f"""\
[[cluster]]
name = "{cluster.name}"
rows = {{ on_change = "cycle", wait_s = 1.0 }}
group = "run"
label = {{ remaining = "cycle", cap = {cluster.cap:g}, unit = "cycles" }}    # cycles left until the machine fails
"""
    return "\n".join([head, *fields, *counters])


def _end(layout: Layout, end: EndPlan) -> str:
    tags = [
        f'{name} = "{_source_of(end)}/{_tag(end, name)}"'
        for name in (*layout.scenario.cluster(end.cluster).fields, *COUNTERS)
    ]
    return "\n".join([f'[[end]]\nname = "{end.name}"\ncluster = "{end.cluster}"\n\n[end.tags]', *tags, ""])


def _task(spec: TaskSpec) -> str:
    data = spec.model_dump(mode="json", exclude_defaults=True, exclude={"members", "clusters"}) | {"layer": spec.layer}
    plain = [f"{key} = {json.dumps(value)}" for key, value in data.items() if not isinstance(value, dict)]
    tables = {key: value for key, value in data.items() if isinstance(value, dict)}
    sections = [
        f"\n[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in tables.items()
    ]
    return "\n".join(["# fedfab task submit FILE", *plain, *sections, ""])


def _opcua(layout: Layout) -> str:
    return f"opc.tcp://{_HOST}:{layout.ports['opcua']}/plant"


def _historian(layout: Layout) -> Path:
    return layout.folder / "historian.db"


def _source_of(end: EndPlan) -> str:
    return f"historian-{end.name}" if end.serve == "sql" else end.serve


def _tag(end: EndPlan, field: str) -> str:
    return field if end.serve == "sql" else f"{end.name}.{field}"


def _write(path: Path, text: str) -> None:
    write_atomic(path, text.encode())
