"""The network in torch: standardise, flatten, `encoder -> trunk -> head`. Only worker processes import this."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.learner import Params
from models.parameters import layers, require, scaler, shapes, trainable
from models.schema import Schema
from models.spec import TaskSpec


class Network(nn.Module):
    """Windows in raw units, shape (n, window, f), to scores (n, outputs): standardised label, or logits of the classes."""

    def __init__(self, spec: TaskSpec, schema: Schema) -> None:
        super().__init__()
        self.spec, self.schema = spec, schema
        self._layers = layers(spec, schema)
        self._names = tuple(shapes(spec, schema))
        for name, shape in shapes(spec, schema).items():
            if trainable(name):
                self.register_parameter(_key(name), nn.Parameter(torch.empty(shape)))
            else:
                self.register_buffer(_key(name), torch.empty(shape))

    def forward(self, x: Tensor) -> Tensor:
        values = self.named()
        scope = scaler(self.schema)
        value = ((x - values[f"{scope}/mean"]) / values[f"{scope}/std"]).flatten(1)
        for layer in self._layers:
            value = functional.linear(value, values[layer.weight], values[layer.bias])
            if layer.relu:
                value = torch.relu(value)
        return value

    def named(self) -> dict[str, Tensor]:
        """Every parameter and constant by its name in `models.parameters`."""
        return {name: getattr(self, _key(name)) for name in self._names}


def build(spec: TaskSpec, schema: Schema) -> Network:
    """The network for one schema, its parameters not yet set: `load` sets them."""
    return Network(spec, schema)


def load(network: Network, params: Params) -> None:
    """Copy ``params`` into the network; names of other schemas are ignored.

    Raises ModelError FF-MODEL-003 where one is missing or of another shape.
    """
    require(params, network.spec, network.schema)
    for name, tensor in network.named().items():
        np.copyto(tensor.detach().numpy(), params[name])


def dump(network: Network) -> Params:
    """Copies of the trainable parameters, by name."""
    return {name: tensor.detach().numpy().copy() for name, tensor in network.named().items() if trainable(name)}


def _key(name: str) -> str:
    """torch allows no dot in the name of a parameter."""
    return name.replace(".", ":")
