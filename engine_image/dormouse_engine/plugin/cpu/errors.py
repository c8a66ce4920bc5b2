"""What sleeping on a CPU can refuse; every message says what to do.

They are the plugin's own and not the native pool's: a CPU engine needs no compiled part of Dormouse.
"""

from __future__ import annotations


class CpuSleepError(RuntimeError):
    """The root; nothing is lost by any of these."""


class HostOutOfMemoryError(CpuSleepError):
    """There is no room for `needed` bytes; `available` could be had."""

    def __init__(self, message: str, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class IllegalStateError(CpuSleepError):
    """The call makes no sense now."""


class UnsupportedError(CpuSleepError, ValueError):
    """The call, the setting or the model can never work here."""
