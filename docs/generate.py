#!/usr/bin/env python3
"""Write the reference pages that follow from sources, or check that they still do.

    .venv/bin/python docs/generate.py            write docs/reference/*.md that are generated
    .venv/bin/python docs/generate.py --check    write nothing; exit 1 and name each page that differs

A page is a function that returns text from one source: the same sources always give the same bytes. `PAGES`
lists them.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dormouse.api.conditions import ConditionType, Reason, ReasonGroup
from dormouse.domain.states import SETTLED, TRANSITIONS, EngineState, Operation, path
from dormouse.settings import Settings
from dormouse.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
CRD = ROOT / "crds" / "dormouse.dev_sleepingmodels.yaml"
COMMAND = ".venv/bin/python docs/generate.py"

Schema = dict[str, Any]

_SPELLING = """\
A duration is whole numbers with the units `h`, `m`, `s` and `ms`, at most four: `90s`, `1h30m` (GEP-2257).
`null` means unset. With strict field validation, which kubectl asks for, an unknown field is refused; without
it the API server drops the field.
"""
_WORDS = """\
The same words stand in the conditions and `lastDecision` of a SleepingModel's status, in Events and in logs.
The message beside a reason carries the figures.
"""


def _banner(source: str) -> str:
    return f"<!-- Generated from {source} by docs/generate.py. Do not edit. -->\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every field below a schema in the file's order; one of a list's items is written `list[].field`."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}{name}", child
        yield from _fields(child, f"{path}{name}.")
        if "items" in child:
            yield from _fields(child["items"], f"{path}{name}[].")


def _type(schema: Schema) -> str:
    name = str(schema["type"])
    if "enum" in schema:
        name = ", ".join(f"`{value}`" for value in schema["enum"])
    elif name == "array":
        name = f"list of {_type(schema['items'])}, at most {schema['maxItems']}"
    elif "additionalProperties" in schema:
        name = f"map of {_type(schema['additionalProperties'])}"
    elif "(h|m|s|ms)" in schema.get("pattern", ""):
        name = "duration"
    elif schema.get("format") == "date-time":
        name = "time"
    elif "maximum" in schema:
        name += f", {schema['minimum']} to {schema['maximum']}"
    return name


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None or default == {} else f"`{default}`"


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        yield from _rules(child, below)
        if "items" in child:
            yield from _rules(child["items"], f"{below}[]")


def sleepingmodel() -> str:
    """Make the page of the resource from its definition."""
    crd = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    version = crd["spec"]["versions"][0]
    names = crd["spec"]["names"]
    (short,), (category,) = names["shortNames"], names["categories"]
    root = version["schema"]["openAPIV3Schema"]
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    parts = [
        _banner("crds/dormouse.dev_sleepingmodels.yaml"),
        f"# {names['kind']}\n",
        f"`{crd['spec']['group']}/{version['name']}`, short name `{short}`, category `{category}`.\n",
        _cell(root["description"]) + "\n",
        _SPELLING,
        "## Spec\n",
        _cell(spec["description"]) + "\n",
        _table(
            ["field", "type", "default", "meaning"],
            [[f"`{p}`", _type(s), _default(s), _cell(s["description"])] for p, s in _fields(spec, "")],
        ),
        "## What is refused, and with which words\n",
        "Besides wrong types, values and numbers out of range:\n",
        _table(["where", "message"], [[f"`{p}`" if p else "", _cell(m)] for p, m in _rules(root, "")]),
        "## Status\n",
        _cell(status["description"]) + "\n",
        _table(
            ["field", "type", "meaning"],
            [[f"`{p}`", _type(s), _cell(s["description"])] for p, s in _fields(status, "")],
        ),
        "## Columns of `kubectl get`\n",
        _table(
            ["column", "shown", "meaning"],
            [
                [
                    column["name"].upper(),
                    "with `-o wide`" if column.get("priority") else "always",
                    _cell(column.get("description", "Since the object was created.")),
                ]
                for column in version["additionalPrinterColumns"]
            ],
        ),
        "Field selectors: "
        + ", ".join(f"`{field['jsonPath'].removeprefix('.')}`" for field in version["selectableFields"])
        + ", as in `kubectl get sleepingmodels --field-selector spec.modelName=Qwen/Qwen3-32B`.\n",
    ]
    return "\n".join(parts)


def conditions() -> str:
    """Make the page of conditions and reasons from their constants."""
    parts = [
        _banner("operator/dormouse/api/conditions.py"),
        "# Conditions and reasons\n",
        _WORDS,
        "## Conditions\n",
        _table(
            ["condition", "what it says when True"], [[f"`{c.value}`", _cell(c.doc)] for c in ConditionType]
        ),
    ]
    for group in ReasonGroup:
        parts += [
            f"## Reasons: {group.value}\n",
            group.doc + "\n",
            _table(
                ["reason", "meaning"],
                [[f"`{r.value}`", _cell(r.doc)] for r in Reason if r.group is group],
            ),
        ]
    return "\n".join(parts)


def settings() -> str:
    """Make the page of the operator's environment variables."""
    rows = [
        [f"`{name}`", f"`{default}`" if default else "", _cell(meaning)]
        for name, default, meaning in Settings.variables()
    ]
    intro = "The operator reads these environment variables once, at start. Durations are seconds.\n\n"
    banner = _banner("operator/dormouse/settings.py")
    return f"{banner}\n# Settings\n\n{intro}" + _table(["variable", "default", "meaning"], rows)


def metrics() -> str:
    """Make the page of the operator's metrics."""
    watched = Metrics()
    watched.watch(lambda: ({}, {}))
    rows = []
    for family in watched.registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        rows.append([f"`{family.name}{suffix}`", family.type, _cell(family.documentation)])
    banner = _banner("operator/dormouse/telemetry/metrics.py")
    return f"{banner}\n# Metrics\n\n" + _table(["metric", "type", "meaning"], sorted(rows))


def states() -> str:
    """Draw the state machine of an engine, with the tables it is drawn from."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [
        f"    {source.value} --> {target.value}: {operation.value}"
        for (source, operation), target in TRANSITIONS.items()
        if operation is not Operation.RESTART
    ]
    restarted = ", ".join(source.value for source, operation in TRANSITIONS if operation is Operation.RESTART)
    lines.append("```")
    ways = [
        [f"`{state.value}`", f"`{tier.value}`", " → ".join(step.value for step in way)]
        for state in EngineState
        for tier in SETTLED
        if (way := path(state, tier))
    ]
    notes = _notes(ROOT / "operator" / "dormouse" / "domain" / "states.py", "EngineState")
    rows = [[f"`{state.value}`", notes[state.name]] for state in EngineState]
    return (
        _banner("operator/dormouse/domain/states.py")
        + "\n# The states of an engine\n\nA state is observed, never remembered. Operations lead where the arrows "
        + "say; the way to a tier is the shortest path.\n\n"
        + "\n".join(lines)
        + f"\n\nA restart of the pod is the last resort for an engine that is {restarted}.\n\n"
        + _table(["state", "meaning"], rows)
        + "\n## The way to a tier\n\n"
        + _table(["from", "to", "operations"], ways)
    )


def _notes(source: Path, name: str) -> dict[str, str]:
    """Return the docstrings below the members of a class, which Python itself does not keep."""
    tree = ast.parse(source.read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    notes = {}
    for member, note in itertools.pairwise(body):
        if (
            isinstance(member, ast.Assign)
            and isinstance(note, ast.Expr)
            and isinstance(note.value, ast.Constant)
        ):
            target = member.targets[0]
            assert isinstance(target, ast.Name)
            notes[target.id] = _cell(str(note.value.value))
    return notes


PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/sleepingmodel.md": sleepingmodel,
    "docs/reference/conditions.md": conditions,
    "docs/reference/settings.md": settings,
    "docs/reference/metrics.md": metrics,
    "docs/explanation/states.md": states,
}


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check the pages below `root`; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page differs")
    check = parser.parse_args(arguments).check
    stale = []
    for name, page in PAGES.items():
        target, text = root / name, page()
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"{', '.join(stale)}: not what the sources say any more. Mend it with: {COMMAND}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
