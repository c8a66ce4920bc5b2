"""One engine's Python source, asked as text and syntax tree; nothing of it is ever imported.

Names are dotted: a module (`vllm.v1.worker.gpu_worker`) and a path inside it (`Worker.sleep`). What the tree can't
find raises `Gone`, whose message says what is not where.
"""

from __future__ import annotations

import ast
import copy
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = ast.Module | ast.ClassDef
# The decorators that change how a function is called; others (tracing, inference mode) don't concern a caller.
_KINDS = ("staticmethod", "classmethod", "property", "cached_property", "contextmanager", "abstractmethod")


class Gone(AssertionError):  # noqa: N818 - it reads as what it is: the name is gone
    """A name is not where it was, or is something else now."""


class Tree:
    """The source of one release: `folder` holds its package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, module: str, path: str) -> ast.stmt:
        """Return the definition of, or the last assignment to, a name at the top of a module or inside a class."""
        scope: Scope = self.parsed(module)
        *outer, last = path.split(".")
        for name in outer:
            inner = _defined(scope, name)
            if not isinstance(inner, ast.ClassDef):
                raise Gone(f"{module} has no class {'.'.join(outer)}")
            scope = inner
        found = _defined(scope, last)
        if found is None:
            raise Gone(f"{module} has no {path}")
        return found

    def function(self, module: str, path: str) -> Function:
        """Return a function or method."""
        found = self.find(module, path)
        if not isinstance(found, Function):
            raise Gone(f"{module}.{path} is no function")
        return found

    def signature(self, module: str, path: str) -> str:
        """Return how a function is called, without types: e.g. `staticmethod (a, *, b=None)`."""
        return signature(self.function(module, path))

    def value(self, module: str, path: str) -> str:
        """Return what is assigned to a name, as source."""
        found = self.find(module, path)
        if not isinstance(found, ast.Assign | ast.AnnAssign):
            raise Gone(f"{module}.{path} is not assigned")
        return ast.unparse(found.value) if found.value else ""

    def body(self, module: str, path: str) -> str:
        """Return a function's statements as normalised source, without comments and docstring."""
        return body(self.function(module, path))

    def header(self, module: str, path: str) -> str:
        """Return a function's decorators and its `def` with types, as normalised source."""
        return header(self.function(module, path))

    def methods(self, module: str, path: str) -> set[str]:
        """Return the names of the functions that a class defines itself."""
        found = self.find(module, path)
        if not isinstance(found, ast.ClassDef):
            raise Gone(f"{module}.{path} is no class")
        return {part.name for part in found.body if isinstance(part, Function)}

    def bases(self, module: str, path: str) -> tuple[str, ...]:
        """Return a class's bases as they are written."""
        found = self.find(module, path)
        if not isinstance(found, ast.ClassDef):
            raise Gone(f"{module}.{path} is no class")
        return tuple(ast.unparse(base) for base in found.bases)

    def importers(self, module: str, name: str) -> tuple[set[str], set[str]]:
        """Return who binds `name` of `module`: modules that do at their top, and functions that do when called.

        Imports for type checkers alone don't count.
        """
        top: set[str] = set()
        late: set[str] = set()
        for importer, parsed in self._mentioning(name):
            for node, inside in _walk(parsed):
                if isinstance(node, ast.ImportFrom) and self._imports(node, importer, module, name):
                    (late if inside else top).add(f"{importer}:{inside}" if inside else importer)
        return top, late

    def callers(self, name: str) -> set[str]:
        """Return every `module:function` that calls something of this name (`:` alone is a module's top)."""
        return {
            f"{caller}:{inside}"
            for caller, parsed in self._mentioning(name)
            for node, inside in _walk(parsed)
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
        }

    def parsed(self, module: str) -> ast.Module:
        """Return a module's syntax tree; it is shared, so leave it as it is."""
        return _parsed(self.file(module).read_bytes())

    def imports(self, module: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield each name that a module imports from another at its top, with that module and the name there."""
        for statement in statements(self.parsed(module).body):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    yield alias.asname or alias.name, (self._origin(statement, module), alias.name)

    def is_package(self, module: str) -> bool:
        """Whether the module is a folder."""
        return (self.folder.joinpath(*module.split(".")) / "__init__.py").is_file()

    def _mentioning(self, word: str) -> Iterator[tuple[str, ast.Module]]:
        wanted = word.encode()
        for file in sorted(self.folder.rglob("*.py")):
            text = file.read_bytes()
            if wanted in text:
                parts = file.relative_to(self.folder).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), _parsed(text)

    def _imports(self, node: ast.ImportFrom, importer: str, module: str, name: str) -> bool:
        return self._origin(node, importer) == module and any(alias.name == name for alias in node.names)

    def _origin(self, node: ast.ImportFrom, importer: str) -> str:
        """Return the module that is imported from, also where it is written with dots in front."""
        if not node.level:
            return node.module or ""
        package = importer if self.is_package(importer) else importer.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        return f"{package}.{node.module or ''}".rstrip(".")

    def file(self, module: str) -> Path:
        """Return where a module is written."""
        place = self.folder.joinpath(*module.split("."))
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return file
        raise Gone(f"there is no module {module}")


def signature(function: Function) -> str:
    """Return how a function is called, without types."""
    called = copy.deepcopy(function.args)
    for argument in ast.walk(called):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    written = [_last_name(decorator) for decorator in function.decorator_list]
    kinds = [kind for kind in _KINDS if kind in written]
    if isinstance(function, ast.AsyncFunctionDef):
        kinds.append("async")
    return " ".join([*kinds, f"({ast.unparse(called)})"])


def header(function: Function) -> str:
    """Return a function's decorators and its `def` with types, as normalised source."""
    decorators = [f"@{ast.unparse(decorator)}" for decorator in function.decorator_list]
    return "\n".join([*decorators, f"def {function.name}({ast.unparse(function.args)})"])


def body(function: Function) -> str:
    """Return a function's statements as normalised source, without comments and docstring."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return "\n".join(ast.unparse(statement) for statement in statements)


@functools.lru_cache(maxsize=512)
def _parsed(text: bytes) -> ast.Module:
    return ast.parse(text)


def forget() -> None:
    """Let go of all syntax trees: millions of objects, which every later sweep for garbage would look at."""
    _parsed.cache_clear()


def _defined(scope: Scope, name: str) -> ast.stmt | None:
    """Find a name's definition; where there is none, the last assignment to it."""
    found: ast.stmt | None = None
    for statement in statements(scope.body):
        if isinstance(statement, ast.ClassDef | Function) and statement.name == name:
            found = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and name in _targets(statement):
            found = found if isinstance(found, ast.ClassDef | Function) else statement
    return found


def statements(block: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, also those under `if`, `try` and `with`, but not inside functions and classes."""
    for statement in block:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for _, inner in ast.iter_fields(statement):
                for part in inner if isinstance(inner, list) else []:
                    if isinstance(part, ast.stmt):
                        yield from statements([part])
                    elif isinstance(part, ast.ExceptHandler):
                        yield from statements(part.body)


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [ast.unparse(target) for target in targets]


def _last_name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator).split(".")[-1]


def _walk(parsed: ast.AST, inside: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Yield each node with the qualified name of the function around it; what only type checkers see is left out."""
    for node in ast.iter_child_nodes(parsed):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node, "" if inside.endswith(".") else inside
        if isinstance(node, ast.ClassDef):
            yield from _walk(node, f"{inside}{node.name}.")
        elif isinstance(node, Function):
            yield from _walk(node, f"{inside}{node.name}" if inside.endswith(".") or not inside else inside)
        else:
            yield from _walk(node, inside)
