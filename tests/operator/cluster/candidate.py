"""A candidate in a process of its own, to be killed: `python candidate.py kubeconfig namespace name`.

Prints `leading` when it leads, then does nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dormouse.cluster.client import Client
from dormouse.cluster.credentials import Credentials
from dormouse.cluster.lease import Leadership


async def main(kubeconfig: str, namespace: str, name: str) -> None:
    async with (
        Client.official(await Credentials.load(kubeconfig=Path(kubeconfig))) as client,
        Leadership(
            client,
            namespace=namespace,
            name=name,
            identity="candidate",
            duration=2.0,
            renew_deadline=1.5,
            retry=0.2,
        ),
    ):
        print("leading", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
