"""On-line predictions for the plant's systems: the Open Inference Protocol v2 (REST) over the models in use.

A request passes `server` (HTTP), `access` with `signature` and `tls` (who asks), `intake` (how much), `calls` with `protocol` and `tensors`
(what is asked), `latest` (an end's stored window), `lanes` (its turn, in a batch), and leaves its answer with the `recorder`. `shelf` holds
the loaded models and swaps them, `listener` and `control` the sockets, `metrics` the counts. It never trains, and never imports torch.
"""

from gateway.inference.recorder import Recorder
from gateway.inference.server import InferenceServer
from gateway.inference.shelf import Shelf

__all__ = ["InferenceServer", "Recorder", "Shelf"]
