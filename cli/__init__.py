"""The fedfab command: parses arguments, calls a room, prints.

It never holds logic of its own.
"""
