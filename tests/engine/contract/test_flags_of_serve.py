"""Every flag that the entry point gives or refuses is one of `vllm serve`, under the same short name.

And the other way round: what `vllm serve` itself adds to its parser, beside the settings of engine and server, are the
ways to start something else than one HTTP server. A new one must be looked at before an image takes it.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from dormouse_engine.serve.rules import refused_flags, short_flags
from dormouse_engine.serve.settings import MODEL, VARIABLES
from tests.engine.contract.rows import VLLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.contract.tree import Tree

pytestmark = pytest.mark.parametrize("release", VLLM)

FIXED = ["--enable-sleep-mode", "--api-server-count", "--middleware", "--api-key", "--model"]
FIXED += ["--disable-access-log-for-endpoints"]
WAYS = {"--headless", "--api-server-count", "-asc", "--config", "--grpc"}


def _parser_file(tree: Tree) -> Path:
    (found,) = (tree.folder / "vllm" / "entrypoints").rglob("cli_args.py")
    return found


def _added(node: ast.AST) -> Iterator[list[str]]:
    """The names of each flag that code under `node` adds to a parser."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
            words = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
            names = [word for word in words if isinstance(word, str) and word.startswith("-")]
            if names:
                yield names


def _fields(module: ast.Module) -> Iterator[str]:
    """The flags of the server's settings, which are made from the fields of their classes."""
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name in {"BaseFrontendArgs", "FrontendArgs"}:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield f"--{field.target.id.replace('_', '-')}"


def _groups(tree: Tree) -> list[list[str]]:
    server = ast.parse(_parser_file(tree).read_text())
    engine = ast.parse((tree.folder / "vllm/engine/arg_utils.py").read_text())
    return [*_added(server), *_added(engine), *([name] for name in _fields(server))]


def test_every_flag_that_is_given_exists(tree: Tree) -> None:
    there = {name for group in _groups(tree) for name in group}
    given = {variable.flag for variable in VARIABLES if variable.name != MODEL} | {*FIXED}
    assert given - there == set()


def test_every_flag_that_is_refused_exists(tree: Tree) -> None:
    there = {name for group in _groups(tree) for name in group}
    # `--no-…` is what the parser makes of a switch.
    refused = {name.replace("--no-", "--") for name in refused_flags()}
    assert refused - there == set()


def test_short_names_are_those_of_the_engine(tree: Tree) -> None:
    groups = _groups(tree)
    for short, name in short_flags().items():
        assert [name] == [other for group in groups if short in group for other in group if other != short]
    # And none of a refused flag is missing.
    checked = {*refused_flags(), "--api-server-count"}
    ours = {other for group in groups if checked & {*group} for other in group} - checked
    assert ours == {*short_flags()}


def test_there_is_no_new_way_to_start_something_else(tree: Tree) -> None:
    module = ast.parse(_parser_file(tree).read_text())
    (maker,) = (
        node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "make_arg_parser"
    )
    ways = {name for group in _added(maker) for name in group}
    assert ways == WAYS
