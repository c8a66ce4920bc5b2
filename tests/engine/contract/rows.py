"""The kinds of rows of the contract's table: each names one thing in an engine's source and why we rely on it.

A row's `check` raises `Gone` with what is expected, what stands there and why it matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from tests.engine.contract.tree import Gone

if TYPE_CHECKING:
    from tests.engine.contract.tree import Tree

V23 = "vllm-0.23.0"
V32 = "vllm-0.32.0"
V33 = "vllm-0.33.0"
A23 = "vllm-ascend-0.23.0"
VLLM = (V23, V32, V33)
LATER = (V32, V33)


@dataclass(frozen=True, slots=True)
class Row(ABC):
    """One fact about some releases."""

    _: KW_ONLY
    why: str
    versions: tuple[str, ...] = VLLM

    @property
    @abstractmethod
    def subject(self) -> str:
        """What it is about, for the test's name."""

    @abstractmethod
    def check(self, tree: Tree) -> None:
        """Raise Gone when it does not hold."""

    def expect(self, found: object, expected: object) -> None:
        """Raise Gone when the two differ."""
        if found != expected:
            raise Gone(f"{self.subject}\n  expected {expected}\n  found    {found}\n  why      {self.why}")


@dataclass(frozen=True, slots=True)
class Signature(Row):
    """A function is called like this: kinds, names, order and defaults of its parameters."""

    module: str
    path: str
    called: str

    @property
    def subject(self) -> str:
        """Where it is."""
        return f"{self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Compare without types."""
        self.expect(tree.signature(self.module, self.path), self.called)


@dataclass(frozen=True, slots=True)
class Value(Row):
    """A name is assigned this, as source."""

    module: str
    path: str
    value: str

    @property
    def subject(self) -> str:
        """Where it is."""
        return f"{self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Compare the source."""
        self.expect(tree.value(self.module, self.path), self.value)


@dataclass(frozen=True, slots=True)
class Class(Row):
    """A class has exactly these bases, and at least these methods of its own."""

    module: str
    path: str
    bases: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()

    @property
    def subject(self) -> str:
        """Where it is."""
        return f"{self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Compare bases, then methods."""
        self.expect(tree.bases(self.module, self.path), self.bases)
        self.expect(sorted(self.methods - tree.methods(self.module, self.path)), [])


@dataclass(frozen=True, slots=True)
class Exists(Row):
    """A name is there: a field, a property or a method, whichever it is."""

    module: str
    path: str

    @property
    def subject(self) -> str:
        """Where it is."""
        return f"{self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Find it."""
        tree.find(self.module, self.path)


@dataclass(frozen=True, slots=True)
class Missing(Row):
    """A name that another release has is not there in these; when it comes, we must look."""

    module: str
    path: str

    @property
    def subject(self) -> str:
        """Where it would be."""
        return f"no {self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Find nothing of that name; the module or class around it may be missing too."""
        try:
            tree.find(self.module, self.path)
        except Gone:
            return
        raise Gone(f"{self.module}.{self.path} is there now\n  why      {self.why}")


@dataclass(frozen=True, slots=True)
class Bound(Row):
    """Exactly these modules bind a name at import, and exactly these functions look it up when called.

    Whoever binds it at import keeps what stood there then: replacing the original reaches only the others.
    """

    module: str
    name: str
    at_import: frozenset[str] = frozenset()
    when_called: frozenset[str] = frozenset()

    @property
    def subject(self) -> str:
        """Whose name it is."""
        return f"who binds {self.module}.{self.name}"

    def check(self, tree: Tree) -> None:
        """Compare both sets."""
        at_import, when_called = tree.importers(self.module, self.name)
        self.expect(
            (sorted(at_import), sorted(when_called)), (sorted(self.at_import), sorted(self.when_called))
        )


@dataclass(frozen=True, slots=True)
class Callers(Row):
    """Exactly these functions call something of this name."""

    name: str
    callers: frozenset[str]

    @property
    def subject(self) -> str:
        """What is called."""
        return f"who calls {self.name}"

    def check(self, tree: Tree) -> None:
        """Compare the sets."""
        self.expect(sorted(tree.callers(self.name)), sorted(self.callers))


@dataclass(frozen=True, slots=True)
class Steps(Row):
    """A function's body holds these pieces of source, in this order, and none of those in `without`."""

    module: str
    path: str
    steps: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Where it is."""
        return f"steps of {self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Look for each piece behind the one before it."""
        body = tree.body(self.module, self.path)
        place = 0
        for step in self.steps:
            found = body.find(step, place)
            if found < 0:
                raise Gone(
                    f"{self.subject}: {step!r} is not there in its turn\n  why      {self.why}\n{body}"
                )
            place = found + len(step)
        self.expect([piece for piece in self.without if piece in body], [])


@dataclass(frozen=True, slots=True)
class Header(Row):
    """A function's decorators and typed parameters hold these pieces of source, and none of those in `without`."""

    module: str
    path: str
    pieces: tuple[str, ...]
    without: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Where it is."""
        return f"header of {self.module}.{self.path}"

    def check(self, tree: Tree) -> None:
        """Look for each piece."""
        header = tree.header(self.module, self.path)
        self.expect([piece for piece in self.pieces if piece not in header], [])
        self.expect([piece for piece in self.without if piece in header], [])
