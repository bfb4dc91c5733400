"""Connectors read a plant's systems as batches of samples: value, quality, source time, gateway time.

One folder per system with code, README, sample configuration and golden cases. A connector knows one protocol and nothing else:
never what learning is, never how to retry (the gateway's runtime owns that), never where samples go.
"""
