"""The stub is what people and type checkers read of the extension: it and the extension are one."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import get_type_hints

import dormouse_native
from dormouse_native import _core
from dormouse_native.options import PoolOptions

STUB = ast.parse(Path(dormouse_native.__file__).with_name("_core.pyi").read_text(encoding="utf-8"))


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def stub_members(stub: ast.Module | ast.ClassDef) -> dict[str, ast.stmt]:
    return {node.name: node for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_stub_and_extension_have_the_same_names() -> None:
    assert public(dir(_core)) == set(stub_members(STUB))


def test_stub_and_extension_have_the_same_members_in_every_class() -> None:
    for name, node in stub_members(STUB).items():
        if isinstance(node, ast.ClassDef):
            assert public(dir(getattr(_core, name))) == public(list(stub_members(node))), name


def test_stub_and_extension_take_the_same_arguments() -> None:
    for name, node in stub_members(stub_members(STUB)["Pool"]).items():  # type: ignore[arg-type]
        if name == "__init__" or not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        assert _core.Pool.__dict__[name].__nb_signature__[0][0].startswith(f"def {name}("), name
        given = [argument.arg for argument in node.args.args + node.args.kwonlyargs]
        signature = _core.Pool.__dict__[name].__nb_signature__[0][0]
        assert [argument.arg for argument in arguments(signature)] == given, name


def test_every_option_of_a_pool_is_one_of_the_extension() -> None:
    signature = _core.Pool.__dict__["__init__"].__nb_signature__[0][0]
    assert {argument.arg for argument in arguments(signature)} == {
        "self",
        "driver",
        "device",
        *get_type_hints(PoolOptions),
    }


def arguments(signature: str) -> list[ast.arg]:
    # nanobind writes defaults as \0, \1, …
    readable = signature.replace("\\", "") + ": ..."
    function = ast.parse(readable).body[0]
    assert isinstance(function, ast.FunctionDef)
    return function.args.args + function.args.kwonlyargs


def test_what_the_package_names_is_there_and_documented() -> None:
    for name in dormouse_native.__all__:
        assert hasattr(dormouse_native, name), name
    assert inspect.getdoc(dormouse_native)
