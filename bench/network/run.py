"""A model from one member to another through an aggregator, real processes: seconds, and memory on top of the tensors themselves."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import free_port
from tests.federation.test_crash import said
from tests.federation.test_links import peak, process
from trust import pki

HERE = Path(__file__).parent


async def measure(mib: int) -> dict[str, float]:
    with TemporaryDirectory(prefix="fedfab-network-") as name:
        folder = Path(name)
        pki.init(folder / "ca", ["intl"], "Bench")
        pki.issue(folder / "ca", pki.Request("cloud", "coordinator", "Bench", ["127.0.0.1"]))
        for member in ("gateway-a", "gateway-b"):
            pki.issue(folder / "ca", pki.Request(member, "gateway", "Bench"))
        where = (folder, folder / "ca", f"https://127.0.0.1:{free_port()}")
        async with process("relay", *where) as cloud:
            await said(cloud, "listening")
            begun = time.perf_counter()
            async with process("take", *where, mib) as taker, process("give", *where, mib) as giver:
                found = {"giver": await peak(giver), "taker": await peak(taker)}
            seconds = time.perf_counter() - begun
            assert cloud.stdin is not None
            cloud.stdin.write(b"\n")
            found["aggregator"] = await peak(cloud)
    return {"mib": mib, "seconds": round(seconds, 1)} | {
        f"{who}_mib": round(size / 2**20, 1) for who, size in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, nargs="+", default=[64, 1024], help="sizes of the model in MiB")
    found = [asyncio.run(measure(mib)) for mib in parser.parse_args().mib]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "network.json").write_text(json.dumps(found, indent=1))
    for line in found:
        print(line)


if __name__ == "__main__":
    main()
