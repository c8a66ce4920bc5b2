"""Plugins for an engine into whose Python nothing is installed.

vLLM looks for plugins among installed distributions. A folder with a distribution's metadata on the path is one; its
code comes from the path, too. The engine's interpreter is another than this one, so what is installed here tells
nothing.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.serving import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE: Final = Path(__file__).resolve().parents[2]
"""The folder that holds `benchmarks` and `dormouse_engine`."""
GROUP: Final = "vllm.general_plugins"


def on_path(scratch: Path) -> list[str]:
    """Return the folders that make our code importable and the plugins found; makes one of them."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours: dict[str, str] = project.get("entry-points", {}).get(GROUP, {})
    _metadata(scratch, project["name"], project["version"], ours)
    _metadata(
        scratch,
        "benchmark-plugins",
        "1",
        {
            "benchmark_weights": f"{seeded.__name__}:register",
            "benchmark_paper_device": "benchmarks.two_models.paper:register",
        },
    )
    return [str(HERE), str(scratch)]


def _metadata(folder: Path, name: str, version: str, plugins: Mapping[str, str]) -> None:
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (place / "METADATA").write_text(text, encoding="utf-8")
    lines = [f"[{GROUP}]", *(f"{plugin} = {value}" for plugin, value in plugins.items())]
    (place / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
