"""A Debian box to install on: this machine's own files under an overlay, in namespaces without a network, under a systemd of its own.

Nothing it does reaches this machine, and it is gone when the test is.
"""

from __future__ import annotations

import subprocess
import time
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
cd {folder}/root
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
for folder in run tmp opt; do mount -t tmpfs -o mode=755 $folder $folder; done
chmod 1777 tmp
mkdir box old
mount --bind {shared} box
rm -rf etc/systemd/system
mkdir etc/systemd/system
printf '[Unit]\\nRequires=basic.target dbus.service\\nAfter=basic.target\\n' > etc/systemd/system/box.target
for unit in binfmt modules-load remount-fs sysctl tmpfiles-setup-dev udev-trigger udevd networkd resolved timesyncd; do
  ln -s /dev/null etc/systemd/system/systemd-$unit.service
done
for unit in dev-hugepages dev-mqueue sys-kernel-debug sys-kernel-tracing sys-kernel-config sys-fs-fuse-connections tmp; do
  ln -s /dev/null etc/systemd/system/$unit.mount
done
ln -s /dev/null etc/systemd/system/proc-sys-fs-binfmt_misc.automount
pivot_root . old
exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c \
  'umount -l /old; mount --make-rshared /; exec /lib/systemd/systemd --unit=box.target --log-target=journal --show-status=0'
"""


@dataclass(frozen=True)
class Box:
    """Runs commands as root on the box. The folder that was shared with it is at ``/box``."""

    pid: int

    def run(self, *command: str, fails: bool = False) -> str:
        """What the command printed, both streams together."""
        done = self._run(*command)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def shell(self, script: str, *, fails: bool = False) -> str:
        """What a shell script printed."""
        return self.run("bash", "-euc", script, fails=fails)

    def wait(self) -> None:
        """Until systemd has started what there is."""
        deadline = time.monotonic() + 60
        while (state := self._run("systemctl", "is-system-running").stdout.strip()) not in ("running", "degraded"):
            assert time.monotonic() < deadline, state
            time.sleep(0.1)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        spaces = ("--mount", "--net", "--pid", "--ipc", "--cgroup", "--root")
        enter = ["nsenter", f"--target={self.pid}", *spaces, "env", "--chdir=/", "-i", "LC_ALL=C.UTF-8", "HOME=/root"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [*enter, path, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )


@contextmanager
def box(folder: Path, shared: Path) -> Iterator[Box]:
    """A fresh box that sees ``shared``, read by all, at ``/box``; ``folder`` must be empty."""
    script = _BOX.format(folder=folder, shared=shared)
    spaces = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child"]
    with subprocess.Popen([*spaces, "bash", "-c", script]) as keeper:
        try:
            machine = Box(_child(keeper.pid))
            machine.wait()
            yield machine
        finally:
            keeper.kill()


def _child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.01)
    return int(found[0])
