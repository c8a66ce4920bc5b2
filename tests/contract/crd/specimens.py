"""SleepingModels that must be accepted, and ones that must be refused with the words for it.

The API server (strict field validation, as kubectl asks for) and the Python types are held to this one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dormouse.api.names import API_VERSION, KIND

POD = {"containers": [{"name": "engine", "image": "engine:1"}]}
LONG = "a" * 254


@dataclass(frozen=True)
class Good:
    """A spec that both sides take; `name` is the object's."""

    spec: Any
    name: str = "specimen"


@dataclass(frozen=True)
class Bad:
    """A spec that both sides refuse at `field`; the API server says `says`, the types `theirs` if set."""

    spec: Any
    field: str
    says: str
    theirs: str = ""
    name: str = "specimen"

    @property
    def types_say(self) -> str:
        """The words that SpecUnreadableError must hold."""
        return self.theirs or self.says


def body(specimen: Good | Bad) -> dict[str, Any]:
    """Make the whole object of a specimen."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": specimen.name, "namespace": "default"},
        "spec": specimen.spec,
    }


def _template(**metadata: Any) -> dict[str, Any]:
    return {"engine": {"template": {"metadata": metadata, "spec": POD}}}


def _containers(*containers: Any) -> dict[str, Any]:
    return {"engine": {"template": {"spec": {"containers": list(containers)}}}}


GOOD: dict[str, Good] = {
    "empty": Good({}),
    "no spec at all": Good(None),
    "every part empty": Good({"engine": {}, "sleep": {}, "wake": {}, "aliases": []}),
    "null means unset": Good({"replicas": None, "sleep": None, "aliases": None, "wake": {"maxWait": None}}),
    "hugging face name": Good({"modelName": "Qwen/Qwen3-32B"}),
    "name with every sign": Good({"modelName": "0._:/@+=-x"}),
    "name of 253 characters": Good({"modelName": LONG[:253]}),
    "aliases": Good({"modelName": "Qwen/Qwen3-32B", "aliases": ["qwen3", "default"]}),
    "alias that is the object's name": Good({"modelName": "Qwen/Qwen3-32B", "aliases": ["specimen"]}),
    "32 aliases": Good({"aliases": [f"a{i}" for i in range(32)]}),
    "no engines": Good({"replicas": 0}),
    "most engines": Good({"replicas": 1000}),
    "whole number with a point": Good({"replicas": 2.0}),
    "vLLM": Good({"engine": {"type": "VLLM", "port": 1}}),
    "vLLM on Ascend": Good({"engine": {"type": "VLLMAscend", "port": 65535}}),
    "stand-in": Good({"engine": {"type": "StandIn"}}),
    "smallest template": Good({"engine": {"template": {"spec": {"containers": [{"name": "engine"}]}}}}),
    "template with what we never heard of": Good(
        {
            "engine": {
                "template": {"spec": {**POD, "newField": {"deep": [1, {"a": None}]}, "runtimeClassName": "x"}}
            }
        }
    ),
    "template with labels and annotations": Good(_template(labels={"a": "b"}, annotations={"c": "d"})),
    "template with our label for itself": Good(_template(labels={"dormouse.dev/model": "specimen"})),
    "template label that is empty": Good(_template(labels={"a": ""})),
    "two containers": Good(
        _containers({"name": "engine"}, {"name": "sidecar", "env": [{"name": "A", "value": "b"}]})
    ),
    "start in a second": Good({"engine": {"startTimeout": "1s"}}),
    "start in a day": Good({"engine": {"startTimeout": "24h"}}),
    "kept awake": Good({"sleep": {"mode": "Awake"}}),
    "kept asleep, deep": Good({"sleep": {"mode": "Asleep", "deepest": "Discarded"}}),
    "only for a neighbour": Good({"sleep": {"idleTimeout": "0s"}}),
    "zero in other words": Good({"sleep": {"idleTimeout": "0h0m0ms", "deepSleepAfter": "00000ms"}}),
    "shortest idle time": Good({"sleep": {"idleTimeout": "100ms"}}),
    "longest idle time": Good({"sleep": {"idleTimeout": "8760h", "deepSleepAfter": "8759h59m60s"}}),
    "four parts": Good({"sleep": {"idleTimeout": "1h2m3s4ms"}}),
    "a unit twice": Good({"sleep": {"idleTimeout": "90m90m"}}),
    "never deep by time": Good({"sleep": {"deepest": "Discarded", "deepSleepAfter": "0s"}}),
    "no drain": Good({"sleep": {"drainTimeout": "0s"}}),
    "longest drain": Good({"sleep": {"drainTimeout": "60m"}}),
    "shortest wait": Good({"wake": {"maxWait": "1s", "maxAttempts": 1}}),
    "longest wait": Good({"wake": {"maxWait": "3600s", "maxAttempts": 20}}),
    "name of 63 characters": Good({}, name="a" * 63),
    "name with dots": Good({}, name="qwen3-0.6b"),
}

_UNKNOWN = "is unknown to this release"
_NAME = "must begin with a letter or digit and hold only letters, digits and ._:/@+=-"
_TIMER = "must be 0s, or between 100ms and 8760h"
_REPEATED = "spec.aliases must not repeat modelName (metadata.name when unset): remove it from aliases"
_CONTAINERS = "needs spec.containers with at least one container; leave template out to adopt existing pods"


def _not_a_duration(text: str) -> str:
    return f"'{text}' is not a duration: write whole numbers with h, m, s or ms, such as 90s or 1h30m"


BAD: dict[str, Bad] = {
    # unknown fields
    "unknown field": Bad({"nap": 1}, "spec.nap", 'unknown field "spec.nap"', _UNKNOWN),
    "unknown field in sleep": Bad(
        {"sleep": {"idleSeconds": 3}},
        "spec.sleep.idleSeconds",
        'unknown field "spec.sleep.idleSeconds"',
        _UNKNOWN,
    ),
    "unknown field in wake": Bad({"wake": {"target": "15s"}}, "spec.wake.target", "unknown field", _UNKNOWN),
    "unknown field in engine": Bad(
        {"engine": {"image": "x"}}, "spec.engine.image", "unknown field", _UNKNOWN
    ),
    "snake case": Bad({"model_name": "a"}, "spec.model_name", "unknown field", _UNKNOWN),
    "misspelt template": Bad(
        {"engine": {"template": {"specs": POD}}}, "spec.engine.template.specs", "unknown field", _UNKNOWN
    ),
    "template with a name": Bad(
        _template(name="x"), "spec.engine.template.metadata.name", "unknown field", _UNKNOWN
    ),
    # names
    "name with a blank": Bad({"modelName": "a b"}, "spec.modelName", _NAME),
    "empty name": Bad({"modelName": ""}, "spec.modelName", _NAME),
    "name with a line break": Bad({"modelName": "a\n"}, "spec.modelName", _NAME),
    "name of foreign letters": Bad({"modelName": "modèle"}, "spec.modelName", _NAME),
    "name that begins with a slash": Bad({"modelName": "/models/x"}, "spec.modelName", _NAME),
    "name of 254 characters": Bad(
        {"modelName": LONG}, "spec.modelName", "may not be more than 253", "at most 253"
    ),
    "name that is a number": Bad(
        {"modelName": 3}, "spec.modelName", "must be of type string", "valid string"
    ),
    "alias with a blank": Bad({"aliases": ["ok", "a b"]}, "spec.aliases[1]", _NAME),
    "alias twice": Bad({"aliases": ["x", "x"]}, "spec.aliases", 'Duplicate value: "x"', "twice"),
    "alias that repeats modelName": Bad({"modelName": "m", "aliases": ["a", "m"]}, "", _REPEATED),
    "alias that repeats the object's name": Bad({"aliases": ["specimen"]}, "", _REPEATED),
    "33 aliases": Bad(
        {"aliases": [f"a{i}" for i in range(33)]},
        "spec.aliases",
        "must have at most 32 items",
        "at most 32 items",
    ),
    "aliases that are no list": Bad({"aliases": "a"}, "spec.aliases", "must be of type array", "valid tuple"),
    "alias that is null": Bad(
        {"aliases": [None]}, "spec.aliases[0]", "must be of type string", "valid string"
    ),
    "object's name of 64 characters": Bad(
        {},
        "",
        "metadata.name must have at most 63 characters, because it becomes a label value",
        name="a" * 64,
    ),
    # numbers
    "negative replicas": Bad(
        {"replicas": -1}, "spec.replicas", "should be greater than or equal to 0", "equal to 0"
    ),
    "too many replicas": Bad(
        {"replicas": 1001}, "spec.replicas", "should be less than or equal to 1000", "to 1000"
    ),
    "half a replica": Bad({"replicas": 1.5}, "spec.replicas", "must be of type int32", "valid integer"),
    "replicas as text": Bad({"replicas": "1"}, "spec.replicas", "must be of type integer", "valid integer"),
    "replicas as truth": Bad({"replicas": True}, "spec.replicas", "must be of type int32", "valid integer"),
    "port zero": Bad({"engine": {"port": 0}}, "spec.engine.port", "greater than or equal to 1"),
    "port too high": Bad({"engine": {"port": 65536}}, "spec.engine.port", "less than or equal to 65535"),
    "no attempts": Bad({"wake": {"maxAttempts": 0}}, "spec.wake.maxAttempts", "greater than or equal to 1"),
    "21 attempts": Bad({"wake": {"maxAttempts": 21}}, "spec.wake.maxAttempts", "less than or equal to 20"),
    # enumerations
    "unknown engine": Bad(
        {"engine": {"type": "SGLang"}},
        "spec.engine.type",
        'values: "VLLM", "VLLMAscend", "StandIn"',
        "'VLLMAscend'",
    ),
    "engine in small letters": Bad({"engine": {"type": "vllm"}}, "spec.engine.type", '"VLLM"', "'VLLM'"),
    "mode in small letters": Bad(
        {"sleep": {"mode": "auto"}},
        "spec.sleep.mode",
        'values: "Auto", "Awake", "Asleep"',
        "'Auto', 'Awake' or",
    ),
    "tier that is not allowed yet": Bad(
        {"sleep": {"deepest": "Zero"}},
        "spec.sleep.deepest",
        'values: "Offloaded", "Discarded"',
        "'Offloaded' or",
    ),
    "empty mode": Bad({"sleep": {"mode": ""}}, "spec.sleep.mode", "Unsupported value", "'Auto'"),
    # durations
    "duration in days": Bad(
        {"sleep": {"idleTimeout": "1d"}}, "spec.sleep.idleTimeout", _not_a_duration("1d")
    ),
    "duration without unit": Bad(
        {"sleep": {"idleTimeout": "300"}}, "spec.sleep.idleTimeout", _not_a_duration("300")
    ),
    "duration with a point": Bad({"wake": {"maxWait": "1.5s"}}, "spec.wake.maxWait", _not_a_duration("1.5s")),
    "negative duration": Bad(
        {"sleep": {"drainTimeout": "-1s"}}, "spec.sleep.drainTimeout", _not_a_duration("-1s")
    ),
    "duration with a blank": Bad(
        {"sleep": {"deepSleepAfter": "1h 30m"}}, "spec.sleep.deepSleepAfter", _not_a_duration("1h 30m")
    ),
    "empty duration": Bad({"engine": {"startTimeout": ""}}, "spec.engine.startTimeout", _not_a_duration("")),
    "six digits": Bad(
        {"sleep": {"idleTimeout": "100000s"}}, "spec.sleep.idleTimeout", _not_a_duration("100000s")
    ),
    "five parts": Bad(
        {"wake": {"maxWait": "1s1s1s1s1s"}}, "spec.wake.maxWait", _not_a_duration("1s1s1s1s1s")
    ),
    "duration in other digits": Bad({"wake": {"maxWait": "٣s"}}, "spec.wake.maxWait", _not_a_duration("٣s")),
    "duration too long to read": Bad(
        {"wake": {"maxWait": "1" * 28 + "s"}},
        "spec.wake.maxWait",
        "may not be more than 28",
        "is not a duration",
    ),
    "duration as number": Bad(
        {"wake": {"maxWait": 120}}, "spec.wake.maxWait", "must be of type string", "must be a string"
    ),
    "no time to start": Bad(
        {"engine": {"startTimeout": "0s"}}, "spec.engine.startTimeout", "must be between 1s and 24h"
    ),
    "just too little to start": Bad(
        {"engine": {"startTimeout": "999ms"}}, "spec.engine.startTimeout", "must be between 1s and 24h"
    ),
    "over a day to start": Bad(
        {"engine": {"startTimeout": "24h1ms"}}, "spec.engine.startTimeout", "between 1s and 24h"
    ),
    "idle for a blink": Bad({"sleep": {"idleTimeout": "99ms"}}, "spec.sleep.idleTimeout", _TIMER),
    "idle over a year": Bad({"sleep": {"idleTimeout": "8760h1ms"}}, "spec.sleep.idleTimeout", _TIMER),
    "deep after a blink": Bad({"sleep": {"deepSleepAfter": "1ms"}}, "spec.sleep.deepSleepAfter", _TIMER),
    "deep after ages": Bad(
        {"sleep": {"deepSleepAfter": "99999h99999h"}}, "spec.sleep.deepSleepAfter", _TIMER
    ),
    "drain over an hour": Bad(
        {"sleep": {"drainTimeout": "3601s"}}, "spec.sleep.drainTimeout", "must be between 0s and 1h"
    ),
    "no wait": Bad({"wake": {"maxWait": "0s"}}, "spec.wake.maxWait", "must be between 1s and 1h"),
    "wait just too short": Bad(
        {"wake": {"maxWait": "999ms"}}, "spec.wake.maxWait", "must be between 1s and 1h"
    ),
    "wait over an hour": Bad(
        {"wake": {"maxWait": "1h1ms"}}, "spec.wake.maxWait", "must be between 1s and 1h"
    ),
    # templates
    "empty template": Bad({"engine": {"template": {}}}, "spec.engine.template", _CONTAINERS),
    "template without containers": Bad(
        {"engine": {"template": {"spec": {"volumes": []}}}}, "spec.engine.template", _CONTAINERS
    ),
    "template with no container": Bad(_containers(), "spec.engine.template", _CONTAINERS),
    "template of another model": Bad(
        _template(labels={"dormouse.dev/model": "other"}),
        "",
        "spec.engine.template must not set the label dormouse.dev/model to another model: leave it out",
    ),
    "container without a name": Bad(
        _containers({"image": "x"}),
        "spec.engine.template",
        "containers[0].name: Required value",
        "with a name",
    ),
    "container with an empty name": Bad(
        _containers({"name": ""}),
        "spec.engine.template",
        "should be at least 1 chars long",
        "1 to 63 characters",
    ),
    "two containers of one name": Bad(
        _containers({"name": "a"}, {"name": "a"}),
        "spec.engine.template",
        "Duplicate value",
        "with its own name",
    ),
    "containers that are no list": Bad(
        {"engine": {"template": {"spec": {"containers": "engine"}}}},
        "spec.engine.template",
        "must be of type array",
        "at least one container",
    ),
    "template that is text": Bad(
        {"engine": {"template": "x"}}, "spec.engine.template", "must be of type object", "valid dictionary"
    ),
    "label that is a number": Bad(
        _template(labels={"a": 1}),
        "spec.engine.template.metadata.labels.a",
        "must be of type string",
        "valid string",
    ),
    "label value too long": Bad(
        _template(labels={"a": "b" * 64}),
        "spec.engine.template.metadata.labels.a",
        "more than 63",
        "at most 63",
    ),
    "65 labels": Bad(
        _template(labels={f"l{i}": "" for i in range(65)}),
        "spec.engine.template.metadata.labels",
        "must have at most 64",
        "at most 64",
    ),
    # shapes
    "spec that is text": Bad("sleep", "spec", "must be of type object", "valid dictionary"),
    "sleep that is a list": Bad({"sleep": []}, "spec.sleep", "must be of type object", "valid dictionary"),
    "sleep that is truth": Bad({"sleep": True}, "spec.sleep", "must be of type object", "valid dictionary"),
}
