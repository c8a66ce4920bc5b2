"""`engine_image/versions.env`, and what each image is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ROOT / "engine_image" / "versions.env"


@dataclass(frozen=True)
class Recipe:
    """One image: its Dockerfile, its build arguments, and the name that it gets."""

    name: str
    dockerfile: Path
    arguments: dict[str, str]
    tag: str


def versions(environ: Mapping[str, str]) -> dict[str, str]:
    """The file's values; a variable of the same name wins, so that a base can have a registry in front."""
    lines = (line.partition("=") for line in VERSIONS.read_text().splitlines() if line and line[0] != "#")
    return {name: environ.get(name) or value for name, _, value in lines}


def recipes(environ: Mapping[str, str]) -> dict[str, Recipe]:
    """Every image of the project by its short name."""
    have = versions(environ)
    folder = ROOT / "engine_image"
    python, own = have["PYTHON_BASE"], have["DORMOUSE_VERSION"]
    cuda, ascend, cpu = (have[f"{kind}_VLLM_VERSION"] for kind in ("CUDA", "ASCEND", "CPU"))
    on_ascend = {
        "BASE": have["ASCEND_BASE"],
        "VLLM_VERSION": ascend,
        "ASCEND_VERSION": have["ASCEND_VERSION"],
    }
    all_of_them = [
        Recipe("operator", ROOT / "operator" / "Dockerfile", {"BASE": python}, f"dormouse/operator:{own}"),
        Recipe("standin", folder / "standin.Dockerfile", {"BASE": python}, f"dormouse/standin:{own}"),
        Recipe(
            "cpu",
            folder / "cpu.Dockerfile",
            {"BASE": python, "VLLM_VERSION": cpu},
            f"dormouse/vllm-cpu:{cpu}",
        ),
        Recipe(
            "cuda",
            folder / "cuda.Dockerfile",
            {"BASE": have["CUDA_BASE"], "VLLM_VERSION": cuda},
            f"dormouse/vllm:{cuda}",
        ),
        Recipe("ascend", folder / "ascend.Dockerfile", on_ascend, f"dormouse/vllm-ascend:{ascend}"),
    ]
    return {recipe.name: recipe for recipe in all_of_them}
