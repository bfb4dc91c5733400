"""Learning: task specifications, networks, local training, aggregation rules, metrics, ONNX export.

It never talks to a network and never knows a gateway or a coordinator.
"""
