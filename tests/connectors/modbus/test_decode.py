"""Decoding: every type in every byte order, there and back, beside an encoder written from the manuals' tables."""

from __future__ import annotations

import math
import struct
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.modbus.config import ModbusConfig, Order
from connectors.modbus.decode import decoder
from connectors.modbus.plan import plan

FORMATS = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
ORDERS = get_args(Order)


def registers_of(value: float, kind: str, order: str) -> list[int]:
    """The registers of a device that stores ``value`` in ``order``."""
    data = struct.pack(">" + FORMATS[kind], value)
    words = [data[place : place + 2] for place in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return [int.from_bytes(word, "big") for word in words]


def decode(registers: list[int], **tag: Any) -> Any:
    config = ModbusConfig.model_validate(
        {
            "name": "d",
            "host": "h",
            "order": tag.pop("source_order", "ABCD"),
            "tag": [{"name": "t", "address": 0, **tag}],
        }
    )
    (block,) = plan(config)
    (value,) = decoder(block).values(registers)
    return value


def numbers(kind: str) -> st.SearchStrategy[float]:
    if kind in ("f32", "f64"):
        return st.floats(allow_nan=False, width=32 if kind == "f32" else 64)
    bits = int(kind[1:])
    return st.integers(0, 2**bits - 1) if kind[0] == "u" else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
def test_every_type_in_every_order(data: st.DataObject, kind: str, order: str) -> None:
    value = data.draw(numbers(kind))
    assert decode(registers_of(value, kind, order), type=kind, source_order=order) == value


@pytest.mark.parametrize(
    ("order", "registers"),
    [
        ("ABCD", [0x42F6, 0xE979]),
        ("CDAB", [0xE979, 0x42F6]),
        ("BADC", [0xF642, 0x79E9]),
        ("DCBA", [0x79E9, 0xF642]),
    ],
)
def test_the_four_orders_of_a_known_float(order: str, registers: list[int]) -> None:
    assert decode(registers, type="f32", order=order) == pytest.approx(123.456, abs=1e-5)


def test_scale_and_offset() -> None:
    assert decode([235], type="i16", scale=0.1, offset=-10.0) == pytest.approx(13.5)
    assert decode([0xFFFF], type="i16", scale=0.1) == pytest.approx(-0.1)
    assert decode([0x4120, 0x0000], type="f32", scale=2.0) == 20.0


@pytest.mark.parametrize("bit", range(16))
@given(word=st.integers(0, 0xFFFF))
def test_bit_of_a_register(bit: int, word: int) -> None:
    assert decode([word], type="bool", bit=bit) is bool(word >> bit & 1)
    assert decode([word >> 8 | word << 8 & 0xFF00], type="bool", bit=bit, order="BADC") is bool(word >> bit & 1)


def test_strings() -> None:
    text = [0x5072, 0x6573, 0x7320, 0x3700]  # "Press 7\0"
    assert decode(text, type="string", length=4) == "Press 7"
    swapped = [word >> 8 | (word & 0xFF) << 8 for word in text]
    assert decode(swapped, type="string", length=4, order="BADC") == "Press 7"
    assert decode(swapped, type="string", length=4, source_order="DCBA") == "Press 7"


@pytest.mark.parametrize(("kind", "scale"), [("f32", 1.0), ("f32", 2.0), ("f64", 1.0)])
def test_not_a_number_is_no_value(kind: str, scale: float) -> None:
    assert decode(registers_of(math.nan, kind, "ABCD"), type=kind, scale=scale) is None


@given(values=st.lists(st.integers(0, 0xFFFF), min_size=12, max_size=12))
def test_overlapping_tags_and_gaps_in_one_block(values: list[int]) -> None:
    config = ModbusConfig.model_validate(
        {
            "name": "d",
            "host": "h",
            "tag": [
                {"name": "whole", "address": 4, "type": "u32"},
                {"name": "low", "address": 5},
                {"name": "bit", "address": 5, "type": "bool", "bit": 3},
                {"name": "last", "address": 15, "type": "u16"},
            ],
        }
    )
    (block,) = plan(config)
    assert (block.address, block.count) == (4, 12)
    found = {slot.tag.name: value for slot, value in zip(block.slots, decoder(block).values(values), strict=True)}
    assert found == {
        "whole": values[0] << 16 | values[1],
        "low": values[1],
        "bit": bool(values[1] & 8),
        "last": values[11],
    }
