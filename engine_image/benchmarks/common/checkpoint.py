"""A random model on the disk, as vLLM loads it: `python -m benchmarks.common.checkpoint FOLDER SHAPE SEED...`.

Makes FOLDER/SEED for every seed, on the device where there is one. The same seed and device make the same bytes.
A process of its own, for it holds the device's memory until it ends.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

from benchmarks.common.say import say
from benchmarks.common.shapes import SAVED, TINY, Shape

WEIGHTS = "model.safetensors"
SHAPES = {shape.name: shape for shape in (SAVED, TINY)}


def make(folder: Path, shape: Shape, seed: int) -> Path:
    """Write a model of this shape with random weights; returns its folder."""
    torch = importlib.import_module("torch")
    safetensors = importlib.import_module("safetensors.torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chance = torch.Generator(device=device).manual_seed(seed)
    # Narrower layers need a wider spread, else greedy text repeats one token for ever.
    spread = max(0.02, 1.6 / shape.hidden**0.5)
    tensors = {}
    for name, size in shape.tensors().items():
        tensor = torch.ones(size, dtype=torch.bfloat16, device=device)
        if "norm" not in name:
            tensor.normal_(0.0, spread, generator=chance)
        tensors[name] = tensor.cpu()
    shape.write(folder)
    safetensors.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def put(model: Path, place: Path) -> Path:
    """Make `place` hold this model's files, in one step for whoever opens them; returns `place`."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(model / "config.json", place / "config.json")
    fresh = place / f".{WEIGHTS}"
    fresh.unlink(missing_ok=True)
    os.link(model / WEIGHTS, fresh)
    fresh.replace(place / WEIGHTS)
    return place


if __name__ == "__main__":
    for number in sys.argv[3:]:
        made = make(Path(sys.argv[1]) / number, SHAPES[sys.argv[2]], int(number))
        say(f"made {made}: {(made / WEIGHTS).stat().st_size} bytes")
