"""A Debian box to install on: this machine's own files under an overlay, in namespaces without a network, gone when the test is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BOX = """
set -e
mount --make-rprivate /
mount -t tmpfs box {folder}
mkdir {folder}/upper {folder}/work {folder}/root
mount -t overlay box -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root
mount -t proc proc {folder}/root/proc
mount --rbind /dev {folder}/root/dev
mount -t tmpfs run {folder}/root/run
mount -t tmpfs opt {folder}/root/opt
mkdir {folder}/root/box
mount --bind {shared} {folder}/root/box
echo ready
exec sleep infinity
"""


@dataclass(frozen=True)
class Box:
    """Runs commands as root on the box. The folder that was shared with it is at ``/box``."""

    root: Path
    pid: int

    def run(self, *command: str, fails: bool = False) -> str:
        """What the command printed, both streams together."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--", "chroot", str(self.root)]
        clean = [
            "env",
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "HOME=/root",
        ]
        done = subprocess.run(
            [*enter, *clean, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            timeout=300,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def shell(self, script: str, *, fails: bool = False) -> str:
        """What a shell script printed."""
        return self.run("bash", "-euc", script, fails=fails)


@contextmanager
def box(folder: Path, shared: Path) -> Iterator[Box]:
    """A fresh box that sees ``shared``, read by all, at ``/box``; ``folder`` must be empty."""
    script = _BOX.format(folder=folder, shared=shared)
    spaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    with subprocess.Popen([*spaces, "bash", "-c", script], stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "ready\n"
            yield Box(folder / "root", _child(keeper.pid))
        finally:
            keeper.kill()


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
