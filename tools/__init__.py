"""What stands around the product: the simulated plant, the demo, the conformance table.

The product never imports it.
"""
