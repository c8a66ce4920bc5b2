"""The garbage collector, kept out of a wake's way.

A full collection walks over every object: with a thousand models it stopped the operator for 170 to 340 ms, and
nobody can be woken meanwhile. Nearly all of these objects live as long as the process: code, and the picture of the
cluster. They are set aside (`gc.freeze`), so that a collection walks over what is younger only. What that alone gains
for the slowest wakes was not measured.
"""

from __future__ import annotations

import gc

YOUNG = 10_000
"""Objects made, net of those gone, before the youngest are looked at; Python's own 700 suits smaller programs."""


def set_code_aside() -> None:
    """To be called when everything is imported and nothing runs yet."""
    gc.set_threshold(YOUNG, 10, 10)
    gc.collect()
    gc.freeze()


def set_picture_aside() -> None:
    """To be called when the cluster is known: one last full collection, a fraction of a second."""
    gc.collect()
    gc.freeze()
