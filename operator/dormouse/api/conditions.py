"""Condition types and reasons: every word that status, Events and logs use, each documented once.

A reason is one constant here and nowhere else; `docs/reference/conditions.md` is generated from this file. It
says why a condition has its status, or why a decision was taken; the message beside it carries the figures.
Reasons are grouped by what they speak of; several conditions may use the same one.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Self


class _Documented(StrEnum):
    """A StrEnum whose members are written as `NAME = "Value", "one sentence"`; the sentence is `.doc`."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Self:
        """Keep the sentence beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


@unique
class ConditionType(_Documented):
    """The conditions of a SleepingModel, in the order in which status lists them."""

    READY = (
        "Ready",
        "What the spec (or the force annotation) asks for holds, being asleep on purpose included.",
    )
    AWAKE = "Awake", "At least one engine can answer a request now."
    ENGINE_REACHABLE = (
        "EngineReachable",
        "The operator can talk to every engine and change its tier; False says what to set.",
    )
    MEMORY_RECLAIMED = (
        "MemoryReclaimed",
        "The last sleep gave back the device memory that it should have, by measurement.",
    )
    OVERCOMMITTED = (
        "Overcommitted",
        "The models on the same devices don't all fit awake, so they take turns; not a fault.",
    )
    RECONCILING = "Reconciling", "A transition is going on. Present only while it is True (kstatus standard)."
    STALLED = (
        "Stalled",
        "Dormouse gave up until a person acts. Present only while it is True (kstatus standard).",
    )


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ReasonGroup(_Documented):
    """What a reason speaks of."""

    READY = "Ready", "Whether the asked state holds, and if not, what it waits for."
    AWAKE = "Awake", "Whether requests are answered now."
    DECISION = (
        "Decision",
        "Why the operator did, or did not, change a tier: `status.lastDecision`, Events and logs.",
    )
    ENGINE = "Engine", "How the engines answer the operator."
    MEMORY = "Memory", "What was measured after a sleep."
    ROOM = "Room", "Why a wake can't start now. Nothing was moved."
    STALLED = "Stalled", "Why Dormouse gave up; the message says what to do."
    GENERIC = "Generic", "Where nothing more can be said."


@unique
class Reason(StrEnum):
    """Every reason. A member is written `NAME = "Value", group, "one sentence"`; see `.group` and `.doc`."""

    group: ReasonGroup
    doc: str

    def __new__(cls, value: str, group: ReasonGroup, doc: str) -> Self:
        """Keep the group and the sentence beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.group = group
        member.doc = doc
        return member

    # Ready
    AS_ASKED = (
        "AsAsked",
        ReasonGroup.READY,
        "Every engine is in the tier that is asked for, or one that it allows.",
    )
    STARTING = "Starting", ReasonGroup.READY, "An engine was started and does not answer yet."
    SLEEPING = "Sleeping", ReasonGroup.READY, "An engine is being put to sleep."
    WAKING = "Waking", ReasonGroup.READY, "An engine is being woken."
    WAITING_FOR_ROOM = (
        "WaitingForRoom",
        ReasonGroup.READY,
        "The model should be awake but its devices have no room for it yet.",
    )
    WAKE_FAILED = "WakeFailed", ReasonGroup.READY, "The last wake failed; it is tried again after a pause."
    SLEEP_FAILED = "SleepFailed", ReasonGroup.READY, "The last sleep failed; it is tried again after a pause."
    NO_ENGINES = (
        "NoEngines",
        ReasonGroup.READY,
        "No pod serves the model: none carries its label, or replicas is 0.",
    )

    # Awake
    SERVING = "Serving", ReasonGroup.AWAKE, "At least one engine is awake and takes requests."
    ASLEEP = "Asleep", ReasonGroup.AWAKE, "Every engine is asleep; the next request wakes one."

    # Decisions
    KEEP_AS_IS = "KeepAsIs", ReasonGroup.DECISION, "Nothing asks for another tier."
    IN_USE = (
        "InUse",
        ReasonGroup.DECISION,
        "Requests are in flight, or the last one ended less than idleTimeout ago.",
    )
    DEMAND = "Demand", ReasonGroup.DECISION, "A request waits for the model, so it is woken."
    IDLE_TIMEOUT = (
        "IdleTimeout",
        ReasonGroup.DECISION,
        "Nobody used the model for idleTimeout, so it is put to sleep.",
    )
    IDLE_NEIGHBOUR_NEEDS_ROOM = (
        "IdleNeighbourNeedsRoom",
        ReasonGroup.DECISION,
        "The model is idle and another on its devices is waited for, so it is put to sleep.",
    )
    DEEP_SLEEP_DUE = (
        "DeepSleepDue",
        ReasonGroup.DECISION,
        "The model was Offloaded for deepSleepAfter, so it goes on to Discarded.",
    )
    MODE_AWAKE = "ModeAwake", ReasonGroup.DECISION, "sleep.mode is Awake, so the model is kept awake."
    MODE_ASLEEP = (
        "ModeAsleep",
        ReasonGroup.DECISION,
        "sleep.mode is Asleep, so the model is kept at its deepest tier.",
    )
    FORCED_AWAKE = (
        "ForcedAwake",
        ReasonGroup.DECISION,
        "The annotation dormouse.dev/force keeps the model awake.",
    )
    FORCED_ASLEEP = (
        "ForcedAsleep",
        ReasonGroup.DECISION,
        "The annotation dormouse.dev/force keeps the model asleep.",
    )
    FORCE_INVALID = (
        "ForceInvalid",
        ReasonGroup.DECISION,
        "A force annotation can't be read; it is ignored and the spec holds.",
    )
    ROLL_BACK = (
        "RollBack",
        ReasonGroup.DECISION,
        "A wake failed half-way, so the engine is put back to sleep first.",
    )
    FINISH_WAKE = (
        "FinishWake",
        ReasonGroup.DECISION,
        "A wake was interrupted half-way; it is finished before anything else is decided.",
    )
    RESTARTING = (
        "Restarting",
        ReasonGroup.DECISION,
        "An engine could neither wake nor sleep, so its pod is restarted.",
    )

    # Engines
    REACHABLE = "Reachable", ReasonGroup.ENGINE, "Every engine answers, and the guard stands in front of it."
    UNGUARDED = (
        "Unguarded",
        ReasonGroup.ENGINE,
        "An engine runs without the guard: holding, exact idleness and measured memory are not promised.",
    )
    UNMEASURED = (
        "Unmeasured",
        ReasonGroup.ENGINE,
        "An engine's guard can't measure device memory: room for its wakes is not proven.",
    )
    DEV_ENDPOINTS_OFF = (
        "DevEndpointsOff",
        ReasonGroup.ENGINE,
        "An engine has no sleep endpoints: set VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode.",
    )
    TOKEN_REJECTED = (
        "TokenRejected",
        ReasonGroup.ENGINE,
        "An engine refuses the operator's token: mount the same Secret in both.",
    )
    UNREACHABLE = (
        "Unreachable",
        ReasonGroup.ENGINE,
        "An engine does not answer; its state is unknown and left alone.",
    )
    ALIAS_NOT_SERVED = (
        "AliasNotServed",
        ReasonGroup.ENGINE,
        "An engine does not serve a name of spec.aliases: clients that send it are answered 404.",
    )
    DEPTH_LIMITED = (
        "DepthLimited",
        ReasonGroup.ENGINE,
        "An engine says that it comes back right from no sleep as deep as the spec allows, so it sleeps less deep.",
    )
    POD_OF_TWO_MODELS = (
        "PodOfTwoModels",
        ReasonGroup.ENGINE,
        "A pod carries this model's label but serves or belongs to another; it is left alone.",
    )

    # Memory
    RECLAIMED = "Reclaimed", ReasonGroup.MEMORY, "The last sleep freed what it should have."
    RECLAIMED_TOO_LITTLE = (
        "ReclaimedTooLittle",
        ReasonGroup.MEMORY,
        "An engine says that it sleeps but still holds much of its device memory.",
    )
    NOT_MEASURED = (
        "NotMeasured",
        ReasonGroup.MEMORY,
        "No sleep has been measured yet, or the engine can't measure.",
    )

    # Room
    ROOM_UNPROVEN = (
        "RoomUnproven",
        ReasonGroup.ROOM,
        "It can't be shown that the wake would fit, even with every idle neighbour asleep.",
    )
    DEVICE_TOO_SMALL = (
        "DeviceTooSmall",
        ReasonGroup.ROOM,
        "The model does not fit its devices even when it is alone.",
    )
    NEIGHBOUR_BUSY = (
        "NeighbourBusy",
        ReasonGroup.ROOM,
        "The room is held by a neighbour that is serving or has to stay awake.",
    )
    NEIGHBOUR_BOOTING = (
        "NeighbourBooting",
        ReasonGroup.ROOM,
        "A neighbour on the same devices is starting; it would abort if memory changed under it.",
    )
    TRANSITION_IN_PROGRESS = (
        "TransitionInProgress",
        ReasonGroup.ROOM,
        "Another transition is running on the same devices; they go one at a time.",
    )
    BACKING_OFF = (
        "BackingOff",
        ReasonGroup.ROOM,
        "The last attempt failed; the next one starts after a growing pause.",
    )

    # Stalled
    WAKE_ATTEMPTS_EXHAUSTED = (
        "WakeAttemptsExhausted",
        ReasonGroup.STALLED,
        "wake.maxAttempts wakes failed, and a restart of the pod did not help.",
    )
    START_TIMED_OUT = (
        "StartTimedOut",
        ReasonGroup.STALLED,
        "An engine did not answer within engine.startTimeout.",
    )
    CRASH_LOOPING = (
        "CrashLooping",
        ReasonGroup.STALLED,
        "An engine's container keeps dying; look at its logs.",
    )
    TEMPLATE_REJECTED = (
        "TemplateRejected",
        ReasonGroup.STALLED,
        "The API server refuses what engine.template makes; tried again when the spec changes.",
    )
    SLEEP_UNSAFE = (
        "SleepUnsafe",
        ReasonGroup.STALLED,
        "A person orders sleep and the engine says that it comes back right from none, so it stays awake.",
    )
    SPEC_UNREADABLE = (
        "SpecUnreadable",
        ReasonGroup.STALLED,
        "This release can't read the spec (is the CRD newer than the operator?); engines are left alone.",
    )

    # Generic
    OBSERVED = "Observed", ReasonGroup.GENERIC, "As read from the engines and the cluster."
    UNKNOWN = "Unknown", ReasonGroup.GENERIC, "Not read yet, or no longer."
