"""Lets an interpreter that has vLLM find Dormouse's plugin, without installing anything into it.

vLLM finds plugins by their entry points, and Python finds those in a distribution's metadata, in any folder of the
path. So a folder with just that metadata, made from `engine_image/pyproject.toml`, stands beside the sources: what is
tested is the tree as it is, by the entry point that the wheel declares.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING

from tests.vllm_cpu.environment import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = ROOT / "engine_image"


def python_path(folder: Path | None) -> str:
    """What PYTHONPATH must say; with a `folder` for metadata the plugin is found, too."""
    return os.pathsep.join(map(str, [SOURCES] if folder is None else [metadata(folder), SOURCES]))


def metadata(folder: Path) -> Path:
    """Write the distribution's metadata below `folder`, once; returns the folder for the path."""
    project = tomllib.loads((SOURCES / "pyproject.toml").read_text())["project"]
    place = folder / "dormouse-metadata" / f"dormouse_engine-{project['version']}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines: list[str] = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (place / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return place.parent
