"""Tests of the feature store."""

import os

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where files are made that no disk has to keep."""
