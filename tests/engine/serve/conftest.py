"""An environment in which an engine may start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dormouse_engine.serve import Installed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("dream-of-cheese\n")
    return path


@pytest.fixture
def environ(token_file: Path) -> dict[str, str]:
    return {"DORMOUSE_TOKEN_FILE": str(token_file), "DORMOUSE_MODEL": "/models/m", "PATH": "/bin"}


@pytest.fixture
def gpu() -> Installed:
    return Installed("/usr/bin/python3", "vllm", "0.23.0")
