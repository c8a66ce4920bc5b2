"""A two-layer byte-level transformer in numpy whose weights, and a ballast beside them, live in an arena.

It is small (half a MiB), random and deterministic: model name, seed and revision give the weights. It says
nothing sensible, but it says it with attention over real bytes in the arena: when they are lost, the text
changes.

The vocabulary of the output is the end token and printable ASCII. The end token's output row is zero, so a
text ends early only when everything else scores below zero, or when the weights are zeros and all tie.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from dormouse_engine.arena import Arena
from dormouse_engine.standin.weights import END

Array = np.ndarray

WIDTH, HEADS, LAYERS, HIDDEN = 64, 4, 2, 256
WINDOW = 256
OUTPUT = bytes([END, *range(32, 127)])

_SHAPES: dict[str, tuple[int, ...]] = {"embed": (256, WIDTH), "head": (WIDTH, len(OUTPUT))}
for _layer in range(LAYERS):
    _SHAPES |= {
        f"qkv{_layer}": (WIDTH, 3 * WIDTH),
        f"out{_layer}": (WIDTH, WIDTH),
        f"up{_layer}": (WIDTH, HIDDEN),
        f"down{_layer}": (HIDDEN, WIDTH),
    }
PARAMETER_BYTES = 4 * sum(int(np.prod(shape)) for shape in _SHAPES.values())


@dataclass(slots=True)
class Sequence:
    """One request's tokens, keys and values; `epoch` says of which life of the KV cache they are.

    `done` is of how many tokens there are keys and values.
    """

    tokens: list[int]
    epoch: int = -1
    done: int = 0
    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)


class TransformerWeights:
    """`ballast` and `kv_ballast` are real bytes of RSS beside the parameters, moved together with them."""

    def __init__(self, name: str, seed: int, *, ballast: int = 0, kv_ballast: int = 0) -> None:
        self._identity = f"{name}/{seed}"
        self._weights = Arena("weights", PARAMETER_BYTES + ballast)
        self._bytes: Array = np.frombuffer(self._weights.memory, dtype=np.uint8)
        self._kv_cache = Arena("kv_cache", kv_ballast)
        self._epoch = 0
        self._parameters: dict[str, Array] = {}
        offset = 0
        for key, shape in _SHAPES.items():
            size = 4 * int(np.prod(shape))
            flat = self._bytes[offset : offset + size].view(np.float32)
            self._parameters[key] = flat.reshape(shape)
            offset += size

    def fill(self, revision: str) -> None:
        """Generate the weights of `revision` in place, ballast included."""
        random = np.random.default_rng(zlib.crc32(f"{self._identity}/{revision}".encode()))
        for key, parameter in self._parameters.items():
            scale = 1.0 if key == "embed" else 1.5 / np.sqrt(parameter.shape[0])
            parameter[...] = random.standard_normal(parameter.shape, dtype=np.float32) * np.float32(scale)
        self._parameters["head"][:, 0] = 0
        ballast = self._bytes[PARAMETER_BYTES:]
        pattern = random.integers(1, 255, size=1 << 16, dtype=np.uint8)
        for start in range(0, len(ballast), len(pattern)):
            piece = ballast[start : start + len(pattern)]
            piece[...] = pattern[: len(piece)]
        self._weights.forget_copy()

    def offload(self) -> None:
        """Copy to the memfd (once per content) and give the pages back."""
        self._weights.save()
        self._weights.drop()

    def drop(self) -> None:
        """Give pages and host copy back; reads are zeros from now on."""
        self._weights.forget_copy()
        self._weights.drop()

    def restore(self) -> None:
        """Read the pages back in place; zeros stay zeros when level 2 dropped the copy."""
        self._weights.restore()

    def drop_kv_cache(self) -> None:
        """Give the KV ballast's pages back; sequences that live through it without being preempted go on from zeros."""
        self._kv_cache.drop()
        self._epoch += 1

    def touch_kv_cache(self) -> None:
        """Make the KV ballast resident."""
        np.frombuffer(self._kv_cache.memory, dtype=np.uint8)[...] = 1
        self._epoch += 1

    def corrupt(self) -> None:
        """Reverse some rows of the output head: answers stay fluent and are wrong."""
        head = self._parameters["head"]
        head[...] = head[::-1].copy()
        self._weights.forget_copy()

    def checksum(self) -> str:
        """CRC-32 of all weights and ballast, in hex."""
        return f"{zlib.crc32(self._bytes.data):08x}"

    def host_bytes(self) -> int:
        """Bytes in the memfd."""
        return self._weights.size if self._weights.saved else 0

    def resident_bytes(self) -> int:
        """Bytes of both arenas in RSS, from the kernel."""
        return self._weights.resident_bytes() + self._kv_cache.resident_bytes()

    def begin(self, prompt: bytes) -> Sequence:
        """Start with a byte that depends on the whole prompt: attention reaches only `WINDOW` bytes back."""
        return Sequence([zlib.crc32(prompt) & 0xFF, *prompt[-WINDOW:]])

    def preempt(self, sequence: Sequence) -> None:
        """Forget its keys and values."""
        sequence.done = 0

    def next_token(self, sequence: Sequence, *, cached: bool) -> int:
        """Run the tokens that have no keys and values yet; returns an output byte or END."""
        if sequence.epoch != self._epoch or not sequence.done:
            # Of another life of the KV cache: what was there reads as zeros.
            sequence.epoch = self._epoch
            sequence.keys = [np.zeros((sequence.done, WIDTH), np.float32) for _ in range(LAYERS)]
            sequence.values = [np.zeros((sequence.done, WIDTH), np.float32) for _ in range(LAYERS)]
        fresh = np.array(sequence.tokens[sequence.done :])
        state = self._parameters["embed"][fresh] + _positions(sequence.done, len(fresh))
        for layer in range(LAYERS):
            state = state + self._attend(layer, sequence, _norm(state), cached=cached)
            hidden = np.tanh(_norm(state) @ self._parameters[f"up{layer}"])
            state = state + hidden @ self._parameters[f"down{layer}"]
        sequence.done = len(sequence.tokens)
        scores = _norm(state[-1:])[0] @ self._parameters["head"]
        token = OUTPUT[int(np.argmax(scores))]
        sequence.tokens.append(token)
        return token

    def _attend(self, layer: int, sequence: Sequence, state: Array, *, cached: bool) -> Array:
        query, key, value = np.split(state @ self._parameters[f"qkv{layer}"], 3, axis=1)
        if not cached:
            key, value = np.zeros_like(key), np.zeros_like(value)
        keys = np.concatenate([sequence.keys[layer], key])
        values = np.concatenate([sequence.values[layer], value])
        new, total = len(query), len(keys)
        # Position i of the new ones sees everything up to itself, and nothing older than the window.
        distance = np.arange(total - new, total)[:, None] - np.arange(total)[None, :]
        hidden = (distance < 0) | (distance > WINDOW)
        mixed = np.empty_like(query)
        for head in range(HEADS):
            part = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = query[:, part] @ keys[:, part].T / np.float32(np.sqrt(WIDTH / HEADS))
            scores[hidden] = -np.inf
            weight = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, part] = (weight / weight.sum(axis=1, keepdims=True)) @ values[:, part]
        sequence.keys[layer], sequence.values[layer] = keys, values
        return np.asarray(mixed @ self._parameters[f"out{layer}"])


def _norm(state: Array) -> Array:
    return np.asarray(state / np.sqrt((state * state).mean(axis=1, keepdims=True) + np.float32(1e-6)))


def _positions(start: int, count: int) -> Array:
    steps = np.arange(start, start + count, dtype=np.float32)[:, None]
    rates = np.exp(-np.arange(0, WIDTH, 2, dtype=np.float32) / 8)[None, :]
    return np.concatenate([np.sin(steps * rates), np.cos(steps * rates)], axis=1)
