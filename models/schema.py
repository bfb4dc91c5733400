"""What the data of an end looks like: named fields with kind and unit. Ends of one schema form a cluster (clauses 3.2, 5.3)."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict


class FieldSpec(BaseModel):
    """One input field of a row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["number", "category"] = "number"
    unit: str = ""


class Schema(BaseModel):
    """Input fields in their order, and the label. Metadata only: never a value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: tuple[FieldSpec, ...]
    label: FieldSpec

    def digest(self) -> str:
        """Eight hexadecimal digits that name this schema in parameter names (``encoder@1f3a09bc/0.weight``)."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def difference(self, other: Schema) -> str | None:
        """The first field in which ``other`` differs, in words for an error message; None where the two agree."""
        mine = {field.name: field for field in self.fields}
        theirs = {field.name: field for field in other.fields}
        for name, field in mine.items():
            if name not in theirs:
                return f'field "{name}" is missing'
            for attribute in ("kind", "unit"):
                expected, got = getattr(field, attribute), getattr(theirs[name], attribute)
                if expected != got:
                    return f'field "{name}": {attribute} is "{got}", expected "{expected}"'
        for name in theirs:
            if name not in mine:
                return f'field "{name}" is not in the cluster\'s schema'
        if tuple(mine) != tuple(theirs):
            return f"fields come in the order {', '.join(theirs)}, expected {', '.join(mine)}"
        if self.label != other.label:
            return (
                f'label is "{other.label.name}" ({other.label.unit}), expected "{self.label.name}" ({self.label.unit})'
            )
        return None
