"""The feature store: raw samples, feature rows and results of models in layers apart, in one SQLite file (clause 9.4.1.1d)."""

from __future__ import annotations

from gateway.store.labels import Labelling
from gateway.store.records import Progress, RawBatch, RawBlock, Recipe, Result
from gateway.store.store import Store

__all__ = ["Labelling", "Progress", "RawBatch", "RawBlock", "Recipe", "Result", "Store"]
