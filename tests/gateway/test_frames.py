"""What travels between the daemon and its workers comes back as it went, and brings no torch with it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway import frames


@given(
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ).filter(lambda header: all(not isinstance(v, int) or abs(v) < 2**63 for v in header.values())),
    st.dictionaries(st.text(min_size=1, max_size=8), st.lists(st.floats(width=32, allow_nan=False)), max_size=3),
)
def test_a_frame_comes_back_as_it_went(header: dict[str, object], arrays: dict[str, list[float]]) -> None:
    sent = {name: np.array(values, np.float32) for name, values in arrays.items()}
    head, body = frames.encode(header, sent)
    lengths = frames.LENGTHS.unpack(head[: frames.LENGTHS.size])
    assert lengths == (len(head) - frames.LENGTHS.size, len(body))
    values, got = frames.decode(head[frames.LENGTHS.size :], body)
    assert values == header
    assert {k: v.tolist() for k, v in got.items()} == {k: v.tolist() for k, v in sent.items()}


def test_sections_keep_their_names() -> None:
    joined = frames.join(params={"a/0:w": np.ones(1)}, before={"count": np.zeros(1)})
    assert list(frames.section(joined, "params")) == ["a/0:w"]
    assert list(frames.section(joined, "before")) == ["count"]


def test_the_daemons_side_never_imports_torch() -> None:
    code = "import sys, gateway.workers, gateway.ends, gateway.publish, gateway.inference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
