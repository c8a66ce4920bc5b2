"""What the executor needs of a model: content to move, lose and reload, and answers that show it.

`TransformerWeights` (real bytes in an arena) and `PaperWeights` (a few words for a swarm of engines) both
promise: the same content gives the same text; lost content gives an empty or other text and no error.
"""

from __future__ import annotations

from typing import Any, Protocol

END = 0
"""The token that ends a text. Zeroed weights choose it at once: their text is empty, as a real engine's."""


class Weights(Protocol):
    """A model's weights and the arithmetic on them. Tokens are bytes; `END` ends a text."""

    def fill(self, revision: str) -> None:
        """Load the weights of `revision`; a host copy of older ones is stale and goes."""
        ...

    def offload(self) -> None:
        """Leave device memory, keep a host copy."""
        ...

    def drop(self) -> None:
        """Leave device memory, keep nothing."""
        ...

    def restore(self) -> None:
        """Come back from the host copy; without one the content is lost and stays so until `fill`."""
        ...

    def drop_kv_cache(self) -> None:
        """Give the KV cache's memory back."""
        ...

    def touch_kv_cache(self) -> None:
        """Take the KV cache's memory again, with new content."""
        ...

    def corrupt(self) -> None:
        """Spoil the content in place, as a faulty restore would."""
        ...

    def checksum(self) -> str:
        """Tell the content: equal for equal bytes."""
        ...

    def host_bytes(self) -> int:
        """Host bytes of the copy that `offload` keeps."""
        ...

    def resident_bytes(self) -> int:
        """Real bytes of RSS that stand for device memory now."""
        ...

    def begin(self, prompt: bytes) -> Any:
        """Open a sequence; the returned state is passed to `next_token`."""
        ...

    def preempt(self, sequence: Any) -> None:
        """Forget what was computed of a sequence: it is computed again from its tokens."""
        ...

    def next_token(self, sequence: Any, *, cached: bool) -> int:
        """Choose the next token greedily and append it; garbage when the KV cache isn't there (`cached`)."""
        ...
