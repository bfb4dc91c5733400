from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.schema import FieldSpec, Schema
from models.spec import PrivacySpec, TaskSpec
from tests.models.simulation import schema


def test_noise_without_a_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="noise_multiplier needs clip_norm"):
        PrivacySpec(noise_multiplier=1.0)
    assert PrivacySpec(noise_multiplier=1.0, clip_norm=0.5).clip_norm == 0.5


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rte"):
        TaskSpec.model_validate({"name": "wear", "training": {"learning_rte": 0.1}})


@pytest.mark.clause("5.3")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fields": (FieldSpec(name="a", unit="mm/s"),)}, 'field "b" is missing'),
        ({"fields": (FieldSpec(name="a", unit="g"), FieldSpec(name="b"))}, 'field "a": unit is "g", expected "mm/s"'),
        (
            {"fields": (FieldSpec(name="a", unit="mm/s"), FieldSpec(name="b"), FieldSpec(name="c"))},
            'field "c" is not in',
        ),
        ({"fields": (FieldSpec(name="b"), FieldSpec(name="a", unit="mm/s"))}, "order b, a, expected a, b"),
        ({"label": FieldSpec(name="wear", unit="mm")}, 'label is "wear" (mm), expected "wear" (um)'),
    ],
)
def test_a_schema_names_the_first_difference(change: dict[str, object], words: str) -> None:
    mine = Schema(
        fields=(FieldSpec(name="a", unit="mm/s"), FieldSpec(name="b")), label=FieldSpec(name="wear", unit="um")
    )
    other = mine.model_copy(update=change)
    assert mine.difference(mine) is None
    assert words in str(mine.difference(other))
    assert mine.digest() != other.digest()


def test_the_digest_is_the_same_everywhere() -> None:
    assert schema(2).digest() == "3047e42d"
