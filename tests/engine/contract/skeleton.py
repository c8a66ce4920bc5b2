"""An engine's modules as bare bones: its real names, classes, bases and signatures, and nothing that runs.

With `bones(tree)` in effect, `import vllm.v1.worker.gpu_worker` gives a module made from the source in the tree. Every
function is there with its parameters and does nothing; every class with its methods and, where its bases are the
engine's own, with what it inherits; a plain value keeps itself where it is a literal. So hooks can be installed into
the real shape of an engine, which itself needs a GPU, a build of it and gigabytes of packages.
"""

from __future__ import annotations

import ast
import importlib
import sys
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from tests.engine.contract.tree import Function, Gone, statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from tests.engine.contract.tree import Tree

_KEPT = ("staticmethod", "classmethod", "property")


@contextmanager
def bones(tree: Tree) -> Iterator[None]:
    """Let the packages of `tree` be imported as bare bones, and forget them afterwards."""
    packages = {folder.name for folder in tree.folder.iterdir() if (folder / "__init__.py").is_file()}
    there = {package for package in packages if package in sys.modules}
    if there:
        raise RuntimeError(f"{', '.join(there)} is imported already")
    finder = _Finder(tree, packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]


def function(tree: Tree, module: str, path: str) -> Any:
    """Return one function with its real parameters, which does nothing; not bound to anything."""
    found = tree.function(module, path)
    bare = _bare_function(found)
    bare.decorator_list = []
    scope: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(ast.Module([bare], [])), f"<bones of {module}>", "exec"), scope)
    return scope[found.name]


class _Finder(MetaPathFinder):
    def __init__(self, tree: Tree, packages: set[str]) -> None:
        self._tree = tree
        self._packages = packages

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._packages:
            return None
        try:
            self._tree.file(fullname)
        except Gone:
            return None
        return ModuleSpec(fullname, _Bones(self._tree), is_package=self._tree.is_package(fullname))


class _Bones(Loader):
    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def exec_module(self, module: ModuleType) -> None:
        parsed = self._tree.parsed(module.__name__)
        imported = dict(self._tree.imports(module.__name__))
        scope = module.__dict__
        for name in _bases(parsed) & imported.keys():
            scope[name] = _resolve(imported[name])
        for statement in statements(parsed.body):
            bare = _bare(statement, scope)
            if bare is not None:
                code = ast.fix_missing_locations(ast.Module([bare], []))
                exec(compile(code, f"<bones of {module.__name__}>", "exec"), scope)

        def late(name: str) -> Any:
            if name not in imported:
                raise AttributeError(f"module {module.__name__} has no {name}")
            return _resolve(imported[name])

        scope["__getattr__"] = late


def _resolve(place: tuple[str, str]) -> Any:
    """Return what the engine's own module has of that name; a stand-in for anybody else's."""
    module, name = place
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return type(name, (), {})


def _bases(parsed: ast.Module) -> set[str]:
    classes = [statement for statement in statements(parsed.body) if isinstance(statement, ast.ClassDef)]
    return {base.id for each in classes for base in each.bases if isinstance(base, ast.Name)}


def _bare(statement: ast.stmt, scope: dict[str, Any]) -> ast.stmt | None:
    if isinstance(statement, ast.ClassDef):
        bases: list[ast.expr] = [
            base for base in statement.bases if isinstance(base, ast.Name) and _is_class(scope, base.id)
        ]
        body = [part for each in statements(statement.body) if (part := _bare(each, {})) is not None]
        return ast.ClassDef(statement.name, bases, [], body or [ast.Pass()], [])
    if isinstance(statement, Function):
        return _bare_function(statement)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names: list[ast.expr] = [target for target in targets if isinstance(target, ast.Name)]
        return ast.Assign(names, _literal(statement.value)) if names else None
    return None


def _bare_function(function: Function) -> Function:
    parameters = function.args
    bare = ast.arguments(
        posonlyargs=[ast.arg(each.arg) for each in parameters.posonlyargs],
        args=[ast.arg(each.arg) for each in parameters.args],
        vararg=ast.arg(parameters.vararg.arg) if parameters.vararg else None,
        kwonlyargs=[ast.arg(each.arg) for each in parameters.kwonlyargs],
        kw_defaults=[_literal(each) if each is not None else None for each in parameters.kw_defaults],
        kwarg=ast.arg(parameters.kwarg.arg) if parameters.kwarg else None,
        defaults=[_literal(each) for each in parameters.defaults],
    )
    kept = [each for each in function.decorator_list if isinstance(each, ast.Name) and each.id in _KEPT]
    kind = type(function)
    return kind(function.name, bare, [ast.Pass()], list(kept))


def _literal(value: ast.expr | None) -> ast.expr:
    try:
        return ast.Constant(None) if value is None or ast.literal_eval(value) is None else value
    except (ValueError, TypeError):
        return ast.Constant(None)


def _is_class(scope: dict[str, Any], name: str) -> bool:
    return isinstance(scope.get(name), type) and scope[name] is not object
