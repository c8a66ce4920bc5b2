"""What tests of transitions ask of a rig, and how they let its engine answer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.engine.guard.conftest import Rig


def answers(status: int, content: Any) -> "Callable[[], Awaitable[tuple[int, Any]]]":
    async def fault() -> tuple[int, Any]:
        return status, content

    return fault


def sleeps(rig: "Rig") -> list[str]:
    return [call for call in rig.engine.calls if call.startswith("POST /sleep")]


async def last(rig: "Rig") -> dict[str, Any]:
    report = await rig.client.report()
    transition: dict[str, Any] = report["last_transition"]
    return transition


async def kind(rig: "Rig") -> str:
    return str((await last(rig))["error"]["kind"])
