"""Versions of the coordinator's configuration file. A change of the layout adds one entry here, and old files go on working."""

from common.layout import Layout, Move

LAYOUT = Layout(
    changes=(
        (
            Move(
                ("coordinator", "database"), ("database", "url")
            ),  # 1 → 2: beside the password, which the URL must not hold
            Move(("log", "style"), ("log", "format")),
        ),
    )
)
