"""Versions of the gateway's configuration files. A change of the layout adds one entry here, and old files go on working."""

from common.layout import Layout, Move

LAYOUT = Layout(
    changes=(
        (Move(("log", "style"), ("log", "format")),),  # 1 → 2: the name that log shippers and systemd use
    )
)
