"""Who may learn together: ends of one schema in a cluster, one kind of label in a task (clauses 3.2, 5.3)."""

from __future__ import annotations

from collections.abc import Mapping

from models.learner import Description
from models.schema import FieldSpec, Schema


def admit(descriptions: Mapping[str, Description], *, one_schema: bool) -> tuple[dict[str, Schema], dict[str, str]]:
    """Schemas by digest of those who fit together, and why the others do not, by name; who comes first sets the measure.

    With ``one_schema``, clusters of one name must have one schema, as ends of a cluster do. Without, plants may have other
    sensors under the same name of a cluster (each schema has an encoder of its own), but the label must mean the same.
    """
    admitted: dict[str, Schema] = {}
    named: dict[str, Schema] = {}
    label: FieldSpec | None = None
    refused: dict[str, str] = {}
    for name, description in descriptions.items():
        schemas = description.schemas
        label = label or next((schema.label for schema in schemas.values()), None)
        reason = next((why for schema in schemas.values() if (why := _other_label(label, schema))), None)
        if one_schema and reason is None:
            reason = next(
                (
                    f'cluster "{cluster}": {why}'
                    for cluster, schema in schemas.items()
                    if cluster in named and (why := named[cluster].difference(schema))
                ),
                None,
            )
        if reason is not None:
            refused[name] = reason
            continue
        named = dict(schemas) | named
        admitted |= {schema.digest(): schema for schema in schemas.values()}
    return admitted, refused


def _other_label(expected: FieldSpec | None, schema: Schema) -> str | None:
    if expected is None or (schema.label.kind, schema.label.unit) == (expected.kind, expected.unit):
        return None
    return (
        f'label "{schema.label.name}" is a {schema.label.kind} in "{schema.label.unit}", '
        f'the task learns "{expected.name}", a {expected.kind} in "{expected.unit}"'
    )
