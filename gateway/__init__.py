"""The daemon at the plant: reads sources, keeps the feature store, trains its cluster, answers predictions.

It never imports the coordinator.
"""
