"""The definition and the Python types have the same fields, defaults, values and bounds; and it is tidy."""

from __future__ import annotations

import types
import typing
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dormouse.api import names
from dormouse.api.conditions import ConditionType, Reason
from dormouse.api.durations import PATTERN, parse_duration
from dormouse.api.spec import MODEL_NAME_PATTERN, SleepingModelSpec
from dormouse.api.status import MESSAGE_LIMIT, SleepingModelStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def schema(crd: dict[str, Any]) -> Schema:
    root: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema below this one, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def parts(annotation: Any) -> Iterator[type]:
    """The classes that an annotation speaks of."""
    if typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType, tuple):
        for part in typing.get_args(annotation):
            yield from parts(part)
    elif isinstance(annotation, type):
        yield annotation


def pairs(model: type[BaseModel], schema: Schema, path: str) -> Iterator[tuple[str, FieldInfo, Schema]]:
    """Each field of a type beside its schema; fails when one side has a field that the other has not."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    assert set(fields) == set(schema["properties"]), path
    for name, field in fields.items():
        child = schema["properties"][name]
        yield f"{path}.{name}", field, child
        for part in parts(field.annotation):
            if issubclass(part, BaseModel):
                inner = child["items"] if child["type"] == "array" else child
                yield from pairs(part, inner, f"{path}.{name}")


def spec_pairs(schema: Schema) -> list[tuple[str, FieldInfo, Schema]]:
    # The types know a PodSpec as plain JSON, so its schema is not walked.
    return list(pairs(SleepingModelSpec, schema["properties"]["spec"], "spec"))


def status_pairs(schema: Schema) -> list[tuple[str, FieldInfo, Schema]]:
    return list(pairs(SleepingModelStatus, schema["properties"]["status"], "status"))


def test_defaults_are_equal(schema: Schema) -> None:
    for path, field, child in spec_pairs(schema):
        default = field.default
        if isinstance(default, BaseModel):
            # Where an empty object is the default, its own fields' defaults are compared one by one.
            assert child.get("default", {}) == {}, path
            assert default == type(default)(), path
        elif default is None or default is PydanticUndefined or default in ({}, ()):
            assert child.get("default") in (None, []), path
        elif isinstance(default, float):
            assert parse_duration(child["default"]) == default, path
        else:
            assert child["default"] == default, path


def test_every_default_of_the_definition_is_one_of_the_types(schema: Schema) -> None:
    defaulted = {path for path, node in nodes(schema["properties"]["spec"], "spec") if "default" in node}
    assert defaulted - {"spec"} == {path for path, _, child in spec_pairs(schema) if "default" in child}


def test_enumerations_are_equal(schema: Schema) -> None:
    seen = set()
    for path, field, child in [*spec_pairs(schema), *status_pairs(schema)]:
        enums = [part for part in parts(field.annotation) if issubclass(part, StrEnum)]
        assert child.get("enum", []) == [value.value for enum in enums for value in enum], path
        seen.update(enums)
    assert len(seen) >= 6


def test_bounds_are_equal(schema: Schema) -> None:
    for path, field, child in spec_pairs(schema):
        if child["type"] == "integer":
            bounds = {type(m).__name__: getattr(m, type(m).__name__.lower(), None) for m in field.metadata}
            assert (bounds["Ge"], bounds["Le"]) == (child["minimum"], child["maximum"]), path


def test_status_types_require_what_the_definition_requires(schema: Schema) -> None:
    rendered_always = {
        path for path, field, _ in status_pairs(schema) if field.is_required() or field.default == ""
    }
    required = {
        f"{path}.{name}".replace("[]", "")
        for path, node in nodes(schema["properties"]["status"], "status")
        for name in node.get("required", [])
    }
    assert required == rendered_always


def test_patterns_are_the_ones_of_the_types(schema: Schema) -> None:
    found = {}
    for path, node in nodes(schema["properties"]["spec"], "spec"):
        if "pattern" in node:
            found[path] = node["pattern"]
            first = node["x-kubernetes-validations"][0]
            assert first["rule"] == f"self.matches('{node['pattern']}')", path
            assert first["message"], path
    assert set(found.values()) == {PATTERN, f"^{MODEL_NAME_PATTERN}$"}
    assert len(found) == 2 + 5


def test_everything_is_described(schema: Schema) -> None:
    for path, node in nodes(schema):
        undescribed = path == ".metadata" or path.endswith(("[]", "{}"))
        assert undescribed or len(node.get("description", "")) > 10, path


def test_optional_fields_of_the_spec_say_what_unset_means(schema: Schema) -> None:
    for path, field, child in spec_pairs(schema):
        if path.endswith("template.spec"):
            continue  # a template without it is refused
        assert not field.is_required()
        assert "unset" in child["description"].lower(), path


def test_fields_where_zero_is_special_say_what_it_means(schema: Schema) -> None:
    for path, _, child in spec_pairs(schema):
        if child.get("pattern") == PATTERN or child.get("minimum") == 0:
            assert "0s" in child["description"] or "Zero" in child["description"], path


def test_nothing_is_unbounded(schema: Schema) -> None:
    for path, node in nodes(schema):
        kind = node.get("type")
        if (
            path in ("", ".apiVersion", ".kind", ".metadata")
            or "enum" in node
            or node.get("format") == "date-time"
        ):
            continue
        if kind == "string":
            assert "maxLength" in node, path
        elif kind == "array":
            assert "maxItems" in node, path
            assert node["x-kubernetes-list-type"] in ("map", "set", "atomic"), path
        elif kind == "integer":
            assert "minimum" in node, path
            assert node["format"] in ("int32", "int64"), path
        elif "additionalProperties" in node:
            assert "maxProperties" in node, path
        else:
            # Floats have no place in the API.
            assert kind == "object", path


def test_every_rule_has_a_message(schema: Schema) -> None:
    rules = [rule for _, node in nodes(schema) for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) >= 14
    for rule in rules:
        assert rule["message"]
        assert "self" not in rule["message"]


def test_names_are_the_ones_of_the_types(crd: dict[str, Any]) -> None:
    assert crd["metadata"]["name"] == names.CRD_NAME
    assert crd["spec"]["group"] == names.GROUP
    assert crd["spec"]["names"] == {
        "kind": names.KIND,
        "listKind": f"{names.KIND}List",
        "plural": names.PLURAL,
        "singular": names.SINGULAR,
        "shortNames": [names.SHORT_NAME],
        "categories": [names.CATEGORY],
    }
    assert [version["name"] for version in crd["spec"]["versions"]] == [names.VERSION]


def test_gitops_tools_find_nothing_to_fight_over(crd: dict[str, Any]) -> None:
    assert "status" not in crd
    assert "creationTimestamp" not in crd["metadata"]


def test_there_is_no_phase(schema: Schema) -> None:
    assert "phase" not in schema["properties"]["status"]["properties"]


def test_reasons_and_conditions_fit_their_schema(schema: Schema) -> None:
    condition = schema["properties"]["status"]["properties"]["conditions"]
    fields = condition["items"]["properties"]
    assert len(ConditionType) <= condition["maxItems"]
    for word in (*ConditionType, *Reason):
        assert len(word) <= min(fields["type"]["maxLength"], fields["reason"]["maxLength"])
        assert word.isalpha()
        assert word[0].isupper()


def test_messages_are_cut_to_what_the_definition_takes(schema: Schema) -> None:
    limits = {
        node["maxLength"]
        for path, node in nodes(schema["properties"]["status"])
        if path.endswith((".message", ".error"))
    }
    assert limits == {MESSAGE_LIMIT}
