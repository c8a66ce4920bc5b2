"""Every error of Dormouse, split by who must act.

DormouseError
├── UserError              the user's manifest or cluster is to be changed; the message says how
│   └── SpecUnreadableError    a SleepingModel that this version can't read
├── SettingsError          whoever installed the operator is to change its settings
├── IllegalOperationError  our own bug: an operation that the state table forbids
├── EngineError            an engine's answer; the loop retries after reading the state
│   ├── EngineUnreachableError     no answer in time: the outcome is unknown
│   ├── EngineRefusedError         it refused and says why (busy, draining too long, token, dev mode off)
│   └── EngineFailedError          it tried and failed
├── ClusterError           the API server's answer; retried with back-off
│   ├── RejectedError          it will say the same again until an object changes
│   └── UnavailableError       it is away, overloaded (Retry-After) or the object changed under us
└── LeadershipLostError    another operator acts; this one stops
"""

from __future__ import annotations


class DormouseError(Exception):
    """The root of everything that Dormouse raises on purpose."""


class UserError(DormouseError):
    """A manifest is wrong; the message says what to change."""


class SpecUnreadableError(UserError):
    """A SleepingModel that this release can't read; the message names each field at fault."""


class SettingsError(DormouseError):
    """The operator's own settings are wrong; the message names the variable."""


class IllegalOperationError(DormouseError):
    """The state table has no such transition; nothing was changed."""


class EngineError(DormouseError):
    """An engine did not do what was asked."""


class EngineUnreachableError(EngineError):
    """No answer in time. The outcome of the call is unknown: read the state before deciding again."""


class EngineRefusedError(EngineError):
    """The engine refused and changed nothing.

    `kind` is one of the contract's words: `token`, `dev_endpoints_off`, `not_idle`, `drain_timeout`, …
    """

    def __init__(self, message: str, *, kind: str, status: int) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


class EngineFailedError(EngineError):
    """The engine tried and failed; `kind` is the contract's word, e.g. `out_of_memory`."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class ClusterError(DormouseError):
    """The API server did not do what was asked; `status` is HTTP's, None when there was no answer."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RejectedError(ClusterError):
    """The API server refuses the object as it is (400, 403, 404, 422…): asking again changes nothing."""


class UnavailableError(ClusterError):
    """The API server is away or busy, or the object changed meanwhile; `retry_after` in seconds if it said so."""

    def __init__(self, message: str, *, retry_after: float | None = None, status: int | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class LeadershipLostError(DormouseError):
    """The Lease is held by another operator now."""
