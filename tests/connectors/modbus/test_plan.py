"""Planning: few reads, within the limits, every tag in exactly one, none torn."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connectors.modbus.config import ModbusConfig
from connectors.modbus.plan import Block, plan

KINDS = ("u16", "i16", "u32", "f32", "u64", "f64")


def config(tags: list[dict[str, Any]], **options: Any) -> ModbusConfig:
    named = [{"name": f"t{i}", **tag} for i, tag in enumerate(tags)]
    return ModbusConfig.model_validate({"name": "d", "host": "h", "tag": named, **options})


def reads(blocks: list[Block]) -> list[tuple[int, str, int, int]]:
    return [(block.unit_id, block.table, block.address, block.count) for block in blocks]


def test_neighbours_are_one_read() -> None:
    assert reads(plan(config([{"address": i} for i in range(100)]))) == [(1, "holding", 0, 100)]


def test_a_gap_is_passed_over_up_to_max_gap() -> None:
    tags = [{"address": 0}, {"address": 17}]
    assert reads(plan(config(tags, max_gap=16))) == [(1, "holding", 0, 18)]
    assert reads(plan(config(tags, max_gap=15))) == [(1, "holding", 0, 1), (1, "holding", 17, 1)]


def test_limits_of_125_registers_and_2000_bits() -> None:
    registers = [{"address": i} for i in range(250)]
    bits = [{"address": i, "table": "coil"} for i in range(2001)]
    assert reads(plan(config(registers))) == [(1, "holding", 0, 125), (1, "holding", 125, 125)]
    assert reads(plan(config(bits))) == [(1, "coil", 0, 2000), (1, "coil", 2000, 1)]


def test_a_value_is_never_torn() -> None:
    tags = [{"address": i, "type": "u32"} for i in range(0, 130, 2)]
    assert reads(plan(config(tags))) == [(1, "holding", 0, 124), (1, "holding", 124, 6)]


def test_units_and_tables_are_read_apart() -> None:
    tags = [{"address": 0}, {"address": 1, "unit_id": 7}, {"address": 2, "table": "input"}]
    assert reads(plan(config(tags))) == [(1, "holding", 0, 1), (7, "holding", 1, 1), (1, "input", 2, 1)]


def test_halves_down_to_one_place() -> None:
    (block,) = plan(config([{"address": 0}, {"address": 1}, {"address": 2, "type": "f32"}]))
    halves = block.halves()
    assert halves is not None
    left, right = halves
    assert (left.address, left.count, right.address, right.count) == (0, 1, 1, 3)
    assert left.halves() is None


TAG = st.fixed_dictionaries(
    {"address": st.integers(0, 600), "type": st.sampled_from(KINDS), "unit_id": st.integers(1, 2)}
)


@given(tags=st.lists(TAG, min_size=1, max_size=80), max_gap=st.integers(0, 40), limit=st.integers(4, 125))
def test_every_tag_is_in_one_read_within_the_limits(tags: list[dict[str, Any]], max_gap: int, limit: int) -> None:
    blocks = plan(config(tags, max_gap=max_gap, max_registers=limit))
    assert sorted(slot.index for block in blocks for slot in block.slots) == list(range(len(tags)))
    for block in blocks:
        assert block.count <= limit
        covered: set[int] = set()
        for slot in block.slots:
            assert block.address <= slot.tag.address
            assert slot.end <= block.address + block.count
            assert slot.unit_id == block.unit_id
            covered |= set(range(slot.tag.address, slot.end))
        gaps = "".join("x" if block.address + place in covered else "." for place in range(block.count)).split("x")
        assert max(map(len, gaps)) <= max_gap
