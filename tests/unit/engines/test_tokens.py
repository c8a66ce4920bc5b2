"""The token file may rotate, vanish and come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dormouse.engines.tokens import TokenFile

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_file_no_header_is_sent() -> None:
    tokens = TokenFile(None)
    assert tokens.authorizations() == ()
    assert "DORMOUSE_TOKEN_FILE" in tokens.trouble


def test_every_line_is_a_token_in_order(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("new\n\n  old \n")
    tokens = TokenFile(path)
    assert tokens.authorizations() == (b"Bearer new", b"Bearer old")
    assert tokens.trouble == ""


def test_a_swapped_link_is_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "token"
    link.symlink_to(tmp_path / "one")
    tokens = TokenFile(link)
    assert tokens.authorizations() == (b"Bearer one",)
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert tokens.authorizations() == (b"Bearer two",)


def test_a_file_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    tokens = TokenFile(path)
    assert tokens.authorizations() == ()
    assert "can't be read" in tokens.trouble
    path.write_text("t")
    assert (tokens.authorizations(), tokens.trouble) == ((b"Bearer t",), "")
    path.write_text("\n")
    assert tokens.authorizations() == ()
    assert "empty" in tokens.trouble
