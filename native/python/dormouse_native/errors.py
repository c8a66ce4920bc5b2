"""What the pool raises. Each message says what to do; no content is lost by any of these.

A sleep or discard that ends asleep but could not give all memory back says so in its message, as a `DriverError`
(or as an `IllegalState`, where it was not the device's library that refused); the same call tries again.

DormouseError
├── OutOfMemory        the device has no room: make some and call again
├── HostOutOfMemory    the host has no room for a backup (RAM, cgroup or RLIMIT_MEMLOCK): nothing was given up
├── DriverError        a call of the device's library failed
├── IllegalState       the call makes no sense now
└── InvalidArgument    the call can never work: an unknown tag, level, driver or address

What is not one of these is Python's own: a TypeError for an argument of a wrong type.
"""

from __future__ import annotations


class DormouseError(Exception):
    """The root of everything that the pool raises on purpose."""

    def __str__(self) -> str:
        """Give the message alone; the figures that come with it are attributes."""
        return str(self.args[0]) if self.args else ""


class _ShortageError(DormouseError):
    """Memory that can't be had."""

    def __init__(self, message: str, needed: int, available: int) -> None:
        super().__init__(message, needed, available)
        self.needed = needed
        """Bytes that were asked for."""
        self.available = available
        """Bytes that could be had."""


class OutOfMemory(_ShortageError):  # noqa: N818 - the names of the C++ core, on both sides alike
    """The device has no room for `needed` bytes; the same call may work later."""


class HostOutOfMemory(_ShortageError):  # noqa: N818
    """The host can't back or lock `needed` bytes of a backup. Raised before the device gives anything up."""


class DriverError(DormouseError):
    """A call of the device's library failed."""

    def __init__(self, message: str, call: str, code: int) -> None:
        super().__init__(message, call, code)
        self.call = call
        """The function's name; `dlopen` where the library could not be loaded."""
        self.code = code
        """What it answered; -1 where it is not there to be called."""


class IllegalState(DormouseError):  # noqa: N818
    """The call makes no sense in the state that the pool is in."""


class InvalidArgument(DormouseError, ValueError):  # noqa: N818
    """The call can never work: an unknown tag, level, driver or address."""
