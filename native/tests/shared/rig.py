"""A device, torch on it, and tensors over a pool's memory: what the promises of `promises.py` are tried with.

torch is in no environment that the types are checked in, so it is Any here.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dormouse_native import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from dormouse_native.options import PoolOptions

MIB = 1 << 20
GIB = 1 << 30
WORD = 8


class Rig:
    """One kind of device. `large` is what the tests about memory handle, in bytes."""

    def __init__(
        self, torch: Any, driver: str, device: str, large: int, **options: Unpack[PoolOptions]
    ) -> None:
        self.torch = torch
        self.driver = driver
        self.device = device
        self.large = large
        self._options = options

    def pool(self, **options: Unpack[PoolOptions]) -> Pool:
        """Make a pool that torch's own allocations don't go to."""
        return Pool(self.driver, **{**self._options, **options})  # type: ignore[arg-type]

    def tensor(self, pool: Pool, size: int, tag: str) -> Any:
        """Words of 64 bits over a whole new segment, its slack included."""
        address = pool.malloc(size, tag)
        return self.over(address, pool.size_of(address))

    def over(self, address: int, size: int) -> Any:
        """Let torch see `size` bytes at `address` as 64-bit words, without owning them."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait for all kernels."""

    def fill(self, tensor: Any, seed: int) -> Any:
        """Random bits made on the device; returns a copy on the host."""
        generator = self.torch.Generator(device=self.device)
        generator.manual_seed(seed)
        tensor.random_(-(1 << 63), None, generator=generator)
        return self.copy(tensor)

    def copy(self, tensor: Any) -> Any:
        """Content as of now, on the host."""
        return tensor.detach().to("cpu", copy=True)

    def same(self, tensor: Any, copy: Any) -> bool:
        """Whether every bit of `tensor` is as in `copy`."""
        return bool(self.torch.equal(tensor.to("cpu"), copy))


class Model:
    """A layer of attention and an MLP: weights under `weights`, keys and values under `kv_cache`.

    Its matrices are over 2 MiB and its norms below, as in real models: a sleep of level 2 drops the first alone.
    """

    width, heads, tokens = 512, 8, 64
    matrices = ("qkv", "up", "down")
    norms = ("norm_attention", "norm_mlp")

    def __init__(self, rig: Rig, pool: Pool) -> None:
        self._rig = rig
        self._torch = rig.torch
        width = self.width
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.norms, (width,))
        shapes |= {"qkv": (3 * width, width), "up": (4 * width, width), "down": (width, 4 * width)}
        self.weights = {name: self._floats(pool, shape, "weights") for name, shape in shapes.items()}
        self.cache = self._floats(pool, (2, self.heads, self.tokens, width // self.heads), "kv_cache")
        self.load(*self.matrices, *self.norms)

    def load(self, *names: str) -> None:
        """Write weights in place, always the same ones, as loading from a disk does."""
        for name in names:
            generator = self._torch.Generator(device=self._rig.device)
            generator.manual_seed(len(name))
            self.weights[name].normal_(0, 0.1, generator=generator)

    def output(self) -> Any:
        """Of one pass over fixed tokens, on the host. It writes the cache before it reads it."""
        torch, width = self._torch, self.width
        with torch.no_grad():
            words = torch.arange(self.tokens * width, dtype=torch.float32, device=self._rig.device)
            hidden = torch.sin(words).view(self.tokens, width)
            normal = torch.nn.functional.rms_norm(hidden, (width,), self.weights["norm_attention"])
            parts = (normal @ self.weights["qkv"].T).view(self.tokens, 3, self.heads, width // self.heads)
            query, *kept = parts.permute(1, 2, 0, 3)
            for place, value in zip(self.cache, kept, strict=True):
                place.copy_(value)
            attention = torch.nn.functional.scaled_dot_product_attention(
                query[None], self.cache[0][None], self.cache[1][None], is_causal=True
            )
            hidden = hidden + attention[0].transpose(0, 1).reshape(self.tokens, width)
            normal = torch.nn.functional.rms_norm(hidden, (width,), self.weights["norm_mlp"])
            inner = torch.nn.functional.gelu(normal @ self.weights["up"].T)
            return self._rig.copy(hidden + inner @ self.weights["down"].T)

    def _floats(self, pool: Pool, shape: tuple[int, ...], tag: str) -> Any:
        torch = self._torch
        count = torch.Size(shape).numel()
        return self._rig.tensor(pool, 4 * count, tag).view(torch.float32)[:count].view(shape)


def fresh_seed() -> int:
    """A new seed, printed, so that a failure can be had again."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return seed


def resident_bytes() -> int:
    """RAM of this process, pinned memory included."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - nothing is opened but the folder itself


@contextmanager
def asleep(pool: Pool, level: int = 1) -> Iterator[Any]:
    """A sleep around a block, then a wake; gives what the sleep did."""
    slept = pool.sleep(level)
    yield slept
    pool.wake()
