"""Kinds of option that every room may use, `common.options`, under the name that connectors know them by."""

from common.options import Address, LocalFile

__all__ = ["Address", "LocalFile"]
