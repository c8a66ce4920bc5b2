"""Moves a loaded model into arenas: every byte of its parameters into one, every byte of its buffers into another.

What moves is a storage, not a tensor: tied weights and views stay tied, since all tensors that look at one storage are
pointed at its new place, by their own offset, shape and stride. That includes tensors that a module keeps as plain
attributes. A tensor keeps its identity (only its `data` changes), so whoever holds the object, a weight loader or a
compiled graph's inputs, follows along. Peak: the model and one storage more.

A storage that parameters and buffers share counts as a buffer: it survives level 2, and a reload writes it anyway.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dormouse_engine.plugin.cpu.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dormouse_engine.arena import Arena

torch: Any = importlib.import_module("torch")

_ALIGNMENT: Final = 64
"""Bytes: a cache line, and what the widest vector instructions like."""


class Moved(NamedTuple):
    """What a move came to."""

    parameters: int
    """Bytes."""
    buffers: int
    """Bytes."""
    left_behind: int
    """Bytes that somebody outside the modules still holds at their old place: a reload won't reach those."""


@dataclass(slots=True)
class _Storage:
    """All tensors that look at one storage."""

    size: int
    buffer: bool = False
    tensors: list[Any] = field(default_factory=list)


def move(model: Any, make: Callable[[str, int, bool], Arena]) -> Moved:
    """Move `model`; `make(name, size, kept)` gives the arenas.

    Raises:
        UnsupportedError: a layer keeps its weights packed where they can't be moved; nothing was moved.
    """
    _refuse_packed(model)
    found = _storages(model)
    sizes = {True: 0, False: 0}
    left_behind = 0
    for kept, name in ((False, "parameters"), (True, "buffers")):
        chosen = [address for address, storage in found.items() if storage.buffer is kept]
        if not chosen:
            continue
        arena = make(name, sum(_aligned(found[address].size) for address in chosen), kept)
        offset = 0
        for address in chosen:
            storage = found.pop(address)
            left_behind += _move_one(storage, arena, offset)
            offset += _aligned(storage.size)
            sizes[kept] += storage.size
    return Moved(sizes[False], sizes[True], left_behind)


def _move_one(storage: _Storage, arena: Arena, offset: int) -> int:
    """Return the bytes that stayed alive at the old place."""
    place = torch.frombuffer(arena.memory, dtype=torch.uint8, count=storage.size, offset=offset)
    old = storage.tensors[0].untyped_storage()
    with torch.no_grad():
        place.copy_(torch.empty(0, dtype=torch.uint8).set_(old))
        for tensor in storage.tensors:
            view = torch.empty(0, dtype=tensor.dtype)
            view.set_(place.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
            tensor.data = view
    watch = torch.multiprocessing.reductions.StorageWeakRef(old)
    del old
    return 0 if watch.expired() else storage.size


def _storages(model: Any) -> dict[int, _Storage]:
    """By address. What is empty or not in RAM has nothing to move."""
    found: dict[int, _Storage] = {}
    modules = list(model.modules())
    parameters = [tensor for module in modules for tensor in module._parameters.values()]  # noqa: SLF001
    buffers = [tensor for module in modules for tensor in module._buffers.values()]  # noqa: SLF001
    for tensor in _distinct(parameters + buffers):
        storage = tensor.untyped_storage()
        if storage.nbytes():
            found.setdefault(storage.data_ptr(), _Storage(storage.nbytes())).tensors.append(tensor)
    for tensor in _distinct(buffers):
        if tensor.untyped_storage().nbytes():
            found[tensor.untyped_storage().data_ptr()].buffer = True
    known = {id(tensor) for storage in found.values() for tensor in storage.tensors}
    attributes = [value for module in modules for value in vars(module).values() if id(value) not in known]
    for tensor in _distinct(attributes):
        if tensor.untyped_storage().data_ptr() in found:
            found[tensor.untyped_storage().data_ptr()].tensors.append(tensor)
    return found


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the dense tensors in RAM among them, each object once."""
    tensors = {
        id(value): value
        for value in values
        if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.layout is torch.strided
    }
    return list(tensors.values())


def _refuse_packed(model: Any) -> None:
    """Layers whose weight is empty and whose product still works hold it where Python can't see it."""
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")  # noqa: SLF001
        if hasattr(module, "cpu_linear") and weight is not None and weight.numel() == 0:
            raise UnsupportedError(
                f"sleep mode on a CPU: the layer {name} has packed its weight for this CPU's own kernels, where it "
                "can't be put to sleep. Start the engine without --enable-sleep-mode, and please report the model"
            )


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
