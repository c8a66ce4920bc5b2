"""The segments that an engine allocates, by model."""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of an engine's segments in bytes, in the order in which it allocates them.

    A discard keeps segments up to `keep_up_to` bytes: in a small shape the limit must lie below its weights and KV.
    """

    name: str
    weights: tuple[int, ...]
    kv_cache: tuple[int, ...]
    keep_up_to: int = 64 * MIB

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights' segments."""
        return sum(self.weights)

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(self.weights) + sum(self.kv_cache)

    def tags(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Each tag with its segments."""
        return (("weights", self.weights), ("kv_cache", self.kv_cache))


def _mib(*sizes: int) -> tuple[int, ...]:
    return tuple(size * MIB for size in sizes)


def _dense(
    name: str,
    *,
    layers: int,
    per_layer: tuple[int, ...],
    embeddings: tuple[int, ...],
    kv_cache: int,
    keep_up_to: int = 64,
) -> Shape:
    """Sizes in MiB. Every layer has the same weights and one KV segment; small tensors share two and two segments."""
    return Shape(
        name,
        _mib(*(per_layer * layers), *embeddings, 10, 2),
        _mib(*([kv_cache] * layers), 2, 2),
        keep_up_to * MIB,
    )


SHAPES = {
    shape.name: shape
    for shape in (
        # What vLLM 0.23 allocates for Qwen3-32B in bf16 (61.02 GiB of parameters) with 19 GiB of KV cache.
        _dense("qwen3-32b", layers=64, per_layer=(80, 100, 250, 500), embeddings=(1484, 1484), kv_cache=304),
        # The same proportions, an eighth per segment and few layers: fits any machine that can build this.
        _dense(
            "laptop", layers=4, per_layer=(10, 12, 32, 62), embeddings=(24, 24), kv_cache=38, keep_up_to=4
        ),
        _dense("tiny", layers=2, per_layer=(2, 10, 12, 16), embeddings=(14,), kv_cache=12, keep_up_to=2),
    )
}


def next_power_of_two(size: int) -> int:
    """Round up to a power of two: what torch's cache of pinned memory takes for `size` bytes."""
    return 1 << max(size - 1, 0).bit_length()


def rounded_bytes(shape: Shape) -> int:
    """Host bytes that the stock pattern holds for the shape's weights."""
    return sum(next_power_of_two(size) for size in shape.weights)
