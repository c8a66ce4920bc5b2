from __future__ import annotations

from pathlib import Path

import pytest

from dormouse_engine.plugin.cpu.settings import Settings
from dormouse_engine.plugin.cpu.store import Store
from dormouse_engine.plugin.settings import SettingsError


def test_nothing_set_means_a_backup_in_ram_and_no_strictness() -> None:
    assert Settings.from_env({}) == Settings(folder=None, strict=False)
    assert Settings.from_env({"DORMOUSE_CPU_BACKUP": "memfd", "DORMOUSE_CPU_STRICT": "0"}) == Settings()


def test_a_folder_and_strictness_can_be_asked_for(tmp_path: Path) -> None:
    given = Settings.from_env({"DORMOUSE_CPU_BACKUP": f"file:{tmp_path}", "DORMOUSE_CPU_STRICT": "1"})
    assert given == Settings(folder=tmp_path, strict=True)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("DORMOUSE_CPU_BACKUP", "ram", "expected memfd or file:"),
        ("DORMOUSE_CPU_BACKUP", "file:here", "an/absolute/folder"),
        ("DORMOUSE_CPU_BACKUP", "/tmp", "expected memfd or file:"),
        ("DORMOUSE_CPU_BACKUP", "file:/nowhere/at/all", "no folder that this user may write to"),
        ("DORMOUSE_CPU_STRICT", "yes", "expected 0 or 1"),
    ],
)
def test_a_value_that_nobody_can_mean_is_refused_by_name(name: str, value: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        Settings.from_env({name: value})
    assert f"{name}={value!r}" in str(caught.value)


def test_a_backup_in_a_folder_has_no_name_there_and_is_gone_when_closed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open("backup") as copy:
        copy.write(b"x")
        assert Path(f"/proc/self/fd/{copy.fileno()}").readlink().is_relative_to(tmp_path)
        assert list(tmp_path.iterdir()) == []
    assert (store.name, Store().name) == ("file", "memfd")
