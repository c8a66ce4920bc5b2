"""Which weights the engine holds, as far as anyone told: the report's `weights_revision`.

It begins with what the engine was started with and follows every reload. A reload that failed may have written
half of the weights, so nobody can say what they are until another one succeeds.
"""

from dormouse_engine.guard.calls import Call


class Revision:
    """`value` is None while unknown."""

    def __init__(self, value: str | None) -> None:
        self.value = value
        self._reloads = 0

    def reloaded(self, call: Call) -> None:
        """Weights were loaded anew, all of them."""
        self._reloads += 1
        self.value = call.revision or call.weights_path or f"reload-{self._reloads}"

    def lost(self) -> None:
        """Note that weights were written in part, or nobody knows how far."""
        self.value = None
