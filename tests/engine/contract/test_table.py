"""Every row of the contract's table holds in the real source of each release that it names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.engine.contract import rows
from tests.engine.contract.table import TABLE
from tests.engine.contract.tree import Gone, Tree
from tests.engine.sources import lock

if TYPE_CHECKING:
    from pathlib import Path

# One release of each row is enough to see that the row can be broken.
ONCE = [pytest.param(row, row.versions[0], id=f"{row.versions[0]}-{row.subject}") for row in TABLE]
CASES = [
    pytest.param(row, release, id=f"{release}-{row.subject}") for row in TABLE for release in row.versions
]


@pytest.mark.parametrize(("row", "release"), CASES)
def test_a_row_holds(row: rows.Row, tree: Tree) -> None:
    row.check(tree)


class Altered(Tree):
    """The real source, but one piece of text is another wherever a row looks."""

    def __init__(self, folder: Path, piece: str) -> None:
        super().__init__(folder)
        self.piece = piece

    def body(self, module: str, path: str) -> str:
        return super().body(module, path).replace(self.piece, "something_else()")

    def header(self, module: str, path: str) -> str:
        return super().header(module, path).replace(self.piece, "something_else()")


PIECES = [
    pytest.param(row, release, piece, id=f"{release}-{row.subject}-{piece}")
    for row in TABLE
    for release in row.versions[:1]
    if isinstance(row, rows.Steps | rows.Header)
    for piece in (row.steps if isinstance(row, rows.Steps) else row.pieces)
]


@pytest.mark.parametrize(("row", "release", "piece"), PIECES)
def test_each_piece_of_a_row_counts(row: rows.Row, tree: Tree, piece: str) -> None:
    with pytest.raises(Gone):
        row.check(Altered(tree.folder, piece))


NAMED = (rows.Signature, rows.Value, rows.Exists, rows.Class, rows.Steps, rows.Header)
MOVED = [case for case in ONCE if isinstance(case.values[0], NAMED)]


@pytest.mark.parametrize(("row", "release"), MOVED)
def test_a_name_that_moved_is_noticed(row: rows.Signature, tree: Tree, tmp_path: Path) -> None:
    """A copy of the module in which the name, or the class around it, is another one."""
    real = tree.file(row.module)
    copy = tmp_path / real.relative_to(tree.folder)
    copy.parent.mkdir(parents=True)
    copy.write_text(real.read_text())
    row.check(Tree(tmp_path))
    for name in row.path.split("."):
        copy.write_text(re.sub(rf"\b{name}\b", f"{name}_moved", real.read_text()))
        with pytest.raises(Gone):
            row.check(Tree(tmp_path))


FOLLOWED = [case for case in ONCE if isinstance(case.values[0], rows.Bound | rows.Callers)]


@pytest.mark.parametrize(("row", "release"), FOLLOWED)
def test_one_user_more_or_less_is_noticed(row: rows.Bound | rows.Callers, tree: Tree, tmp_path: Path) -> None:
    """Copies of all users; then one more that binds and calls the name, then one of them less."""
    users = row.callers if isinstance(row, rows.Callers) else row.at_import | row.when_called
    for user in users:
        real = tree.file(user.partition(":")[0])
        copy = tmp_path / real.relative_to(tree.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(real.read_text())
    row.check(Tree(tmp_path))
    newcomer = tmp_path / "newcomer.py"
    module = row.module if isinstance(row, rows.Bound) else "somewhere"
    newcomer.write_text(f"from {module} import {row.name}\n\ndef use():\n    {row.name}()\n")
    with pytest.raises(Gone, match="newcomer"):
        row.check(Tree(tmp_path))
    newcomer.unlink()
    (tmp_path / tree.file(min(users).partition(":")[0]).relative_to(tree.folder)).write_text("")
    with pytest.raises(Gone):
        row.check(Tree(tmp_path))


def test_a_missing_name_that_comes_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("class Worker:\n    def discard(self): ...\n")
    rows.Missing("engine", "Worker.sleep", why="").check(Tree(tmp_path))
    with pytest.raises(Gone, match=r"engine\.Worker\.discard is there now"):
        rows.Missing("engine", "Worker.discard", why="").check(Tree(tmp_path))


def test_a_piece_that_must_not_come_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("def wake():\n    'words'\n    restore()\n    resume()\n")
    with pytest.raises(Gone, match="resume"):
        rows.Steps("engine", "wake", ("restore()",), without=("resume()",), why="").check(Tree(tmp_path))
    with pytest.raises(Gone, match="in its turn"):
        rows.Steps("engine", "wake", ("resume()", "restore()"), why="").check(Tree(tmp_path))


def test_every_locked_release_has_rows_and_no_other_is_named() -> None:
    assert {release for row in TABLE for release in row.versions} == {source.folder for source in lock.read()}


def test_every_row_says_why() -> None:
    assert all(row.why for row in TABLE)
