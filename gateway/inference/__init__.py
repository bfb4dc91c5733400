"""On-line predictions for the plant's systems: the Open Inference Protocol v2 (REST) over the models in use.

`server` is the HTTP, `tensors` the protocol's tensors and refusals, `shelf` the loaded models and their hot swap, `recorder` the
way of each answer into the results layer. It never trains, and never imports torch.
"""

from gateway.inference.recorder import Recorder
from gateway.inference.server import InferenceServer
from gateway.inference.shelf import Shelf

__all__ = ["InferenceServer", "Recorder", "Shelf"]
