"""The mathematics that keeps one participant's contribution hidden in the whole: pure functions over arrays.

It never does I/O.
"""
