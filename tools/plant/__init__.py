"""A simulated plant that wears out, on real protocols: spindles and pumps behind OPC UA, Modbus TCP and an SQL historian.

It is a tool of its own: it knows nothing of the product that reads it, and what it serves is a plain plant to any other client.
"""
