"""What the online row concludes: a check that there was no time for is not right, whatever the others say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks import online
from benchmarks.common.record import Record
from benchmarks.serving.checks import Checks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class PaperEngine:
    """Awake, whatever is asked."""

    async def report(self) -> dict[str, Any]:
        return {"admitting": True}


async def went(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float) -> dict[str, Any]:
    """Run all checks, each of which finds nothing wrong, within so many seconds; returns what is concluded."""

    async def nothing_wrong(_: Checks) -> None: ...

    names = [name for name, kind in vars(Checks).items() if callable(kind) and not name.startswith("_")]
    for name in names:
        if name not in ("all", "first_answers"):
            monkeypatch.setattr(Checks, name, wrapped(name))
    monkeypatch.setattr(Checks, "first_answers", nothing_wrong)
    record = Record(tmp_path / "online.json", "online", time.monotonic() + seconds)
    checks = Checks(
        engine=PaperEngine(),  # type: ignore[arg-type]  # of the engine only its report is asked here
        record=record,
        vocabulary=256,
        prompt_length=8,
        tokens=4,
        long_tokens=16,
        cycles=1,
        device=False,
    )
    await checks.all()
    return online.conclude(record.data)


def wrapped(name: str) -> Any:
    async def check(_: Checks) -> None: ...

    check.__name__ = name
    return check


async def test_all_checks_without_a_wrong_claim_are_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = await went(monkeypatch, tmp_path, 3600)
    assert told["all_right"]
    assert told["goals"]["the_totals: went through"]["measured"] == 1


async def test_checks_that_there_was_no_time_for_are_not_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await went(monkeypatch, tmp_path, 0)
    assert not told["all_right"]
    assert told["goals"]["the_totals: went through"] == {"goal": True, "tried": 0, "measured": 0, "met": None}
    assert "NOT TRIED: the_totals: went through" in capsys.readouterr().out
