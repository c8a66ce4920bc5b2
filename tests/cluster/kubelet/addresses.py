"""An address of its own for every pod, out of 127.0.0.0/8."""

from __future__ import annotations

import ipaddress
import random
import socket
import sys

from tests.cluster.errors import ClusterError

# Linux answers on all of 127.0.0.0/8. The range is wide and the pick random, because several harnesses may
# run on one machine without knowing of each other.
_LINUX_RANGE = "127.64.0.0/10"
# macOS has 127.0.0.1 only; further ones must be added one by one.
_MACOS_RANGE = "127.77.0.0/24"


class Addresses:
    """Hands out addresses; `keep` marks one that a pod has already."""

    def __init__(self) -> None:
        self._network = ipaddress.ip_network(_LINUX_RANGE if sys.platform == "linux" else _MACOS_RANGE)
        self._taken: set[str] = set()
        check_usable(str(self._network[1]))

    def take(self) -> str:
        """Return an address that no other pod here has."""
        while True:
            address = str(self._network[random.randrange(1, self._network.num_addresses - 1)])
            if address not in self._taken:
                self._taken.add(address)
                return address

    def keep(self, address: str) -> str:
        """Mark and return the address that a pod was given before."""
        self._taken.add(address)
        return address

    def release(self, address: str) -> None:
        """Take an address back."""
        self._taken.discard(address)


def check_usable(address: str) -> None:
    """Raise ClusterError, which says what to do, when nothing can listen on this address."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise ClusterError(
                f"nothing can listen on {address} ({error.strerror}). Every pod needs a loopback address of"
                " its own. Linux has them. macOS has 127.0.0.1 only; add more, which lasts until a restart:\n"
                "    for i in $(seq 1 254); do sudo ifconfig lo0 alias 127.77.0.$i up; done\n"
                "or work in a Linux container or virtual machine."
            ) from None
