"""The ground every room stands on: the error base, atomic and private files, logging.

It never knows a protocol, a model or a room: what stands here is used by at least two rooms and is about none of them.
"""
