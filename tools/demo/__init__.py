"""The demo: the whole of fedfab on loopback, each part a process of its own, judged on machines it never saw."""
