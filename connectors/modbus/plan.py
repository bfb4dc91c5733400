"""Which reads bring all tags: neighbours merged over small gaps, never a value torn in two. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from connectors.modbus.config import ModbusConfig, ModbusTag, Order, Table


@dataclass(frozen=True, slots=True)
class Slot:
    """One tag's place, with the source's defaults filled in."""

    index: int
    """Position of the tag in the configuration."""
    tag: ModbusTag
    unit_id: int
    order: Order

    @property
    def end(self) -> int:
        """Address behind its last register or bit."""
        return self.tag.address + self.tag.size


@dataclass(frozen=True, slots=True)
class Block:
    """One read request and the tags it brings, by address."""

    unit_id: int
    table: Table
    address: int
    count: int
    slots: tuple[Slot, ...]

    @property
    def is_bits(self) -> bool:
        """Whether it reads coils or discrete inputs."""
        return self.table in ("coil", "discrete")

    def halves(self) -> tuple[Block, Block] | None:
        """Two smaller reads of the same tags; None where it reads one place only."""
        cut = len(self.slots) // 2
        left, right = self.slots[:cut], self.slots[cut:]
        return (_block(left), _block(right)) if left else None


def plan(config: ModbusConfig) -> list[Block]:
    """Fewest reads in address order for each unit and table, within ``max_gap``, ``max_registers`` and ``max_bits``."""
    groups: dict[tuple[int, Table], list[Slot]] = {}
    for index, tag in enumerate(config.tag):
        unit_id = config.unit_id if tag.unit_id is None else tag.unit_id
        slot = Slot(index, tag, unit_id, tag.order or config.order)
        groups.setdefault((unit_id, tag.table), []).append(slot)
    blocks: list[Block] = []
    for (_, table), slots in groups.items():
        limit = config.max_bits if table in ("coil", "discrete") else config.max_registers
        blocks.extend(_merge(sorted(slots, key=lambda slot: (slot.tag.address, slot.end)), config.max_gap, limit))
    return blocks


def _merge(slots: Iterable[Slot], max_gap: int, limit: int) -> Iterable[Block]:
    run: list[Slot] = []
    end = 0
    for slot in slots:
        fits = run and slot.tag.address - end <= max_gap and max(end, slot.end) - run[0].tag.address <= limit
        if not fits:
            if run:
                yield _block(run)
            run, end = [], 0
        run.append(slot)
        end = max(end, slot.end)
    if run:
        yield _block(run)


def _block(slots: Sequence[Slot]) -> Block:
    first = slots[0]
    start = first.tag.address
    return Block(first.unit_id, first.tag.table, start, max(slot.end for slot in slots) - start, tuple(slots))
