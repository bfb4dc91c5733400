"""From registers and bits to values, compiled once for each block: all its values come out of one `struct` call. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from connectors.contract import Value
from connectors.modbus.config import ModbusTag, Order
from connectors.modbus.plan import Block

_FORMATS = {
    "u16": "H",
    "i16": "h",
    "u32": "I",
    "i32": "i",
    "u64": "Q",
    "i64": "q",
    "f32": "f",
    "f64": "d",
    "bool": "H",
}

_Finish = Callable[[Any], Value]
"""What is left to do with a value as `struct` unpacked it: an int, a float or bytes, by the format."""


def decoder(block: Block) -> Registers | Bits:
    """What turns the memory that a read of ``block`` brought into the values of its tags, in the order of ``block.slots``."""
    return Bits(block) if block.is_bits else Registers(block)


class Registers:
    """The bytes of every tag are put into the order ABCD and next to each other, whatever order the device has; gaps fall away."""

    def __init__(self, block: Block) -> None:
        places: list[int] = []
        layout = ">"
        for slot in block.slots:
            first = 2 * (slot.tag.address - block.address)
            places.extend(first + place for place in byte_places(slot.tag, slot.order))
            layout += f"{2 * slot.tag.size}s" if slot.tag.data == "string" else _FORMATS[slot.tag.data]
        self._memory = struct.Struct(f">{block.count}H")
        self._pick = itemgetter(*places)
        self._layout = struct.Struct(layout)
        self._finish = [_finisher(slot.tag) for slot in block.slots]

    def values(self, memory: Sequence[int]) -> Iterator[Value]:
        """Values from the registers of the whole block. NaN comes out as None: it is the device's "no value"."""
        ordered = bytes(self._pick(self._memory.pack(*memory)))
        for value, finish in zip(self._layout.unpack(ordered), self._finish, strict=True):
            yield value if finish is None else finish(value)


class Bits:
    """Coils and discrete inputs: one bit for each tag."""

    def __init__(self, block: Block) -> None:
        self._places = [slot.tag.address - block.address for slot in block.slots]

    def values(self, memory: Sequence[int]) -> Iterator[Value]:
        """Values from the bits of the whole block."""
        return (bool(memory[place]) for place in self._places)


def byte_places(tag: ModbusTag, order: Order) -> list[int]:
    """Where the bytes of a value stand among those of its registers as they come, most significant byte first.

    ABCD: high word and high byte first. CDAB: low word first. BADC: low byte first in each word. DCBA: both. For a value of one
    word, and for a string, whose words are characters in reading order, only the order within the word counts.
    """
    low_word_first = order in ("CDAB", "DCBA") and tag.data != "string"
    low_byte_first = order in ("BADC", "DCBA")
    words = range(tag.size)
    return [
        2 * word + (byte ^ low_byte_first) for word in (reversed(words) if low_word_first else words) for byte in (0, 1)
    ]


def _finisher(tag: ModbusTag) -> _Finish | None:
    """None where the unpacked value is the tag's value already."""
    scale, offset = tag.scale, tag.offset
    scaled = (scale, offset) != (1.0, 0.0)
    match tag.data:
        case "string":
            return _text
        case "bool":
            mask = 1 << (tag.bit or 0)
            return lambda word: bool(word & mask)
        case "f32" | "f64":
            return (lambda number: _not_nan(number * scale + offset)) if scaled else _not_nan
        case _:
            return (lambda number: number * scale + offset) if scaled else None


def _not_nan(number: float) -> float | None:
    return number if number == number else None  # noqa: PLR0124


def _text(characters: bytes) -> str:
    """Up to the first NUL, without padding. Bytes that are no UTF-8 come out as U+FFFD."""
    return characters.split(b"\0", 1)[0].decode(errors="replace").rstrip()
