"""How the demo looks: models, tiers and reasons, the device's memory as a bar, and what happened last."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tests.demo.stage import condition

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tests.demo.stage import Stage
    from tests.demo.story import Story

_COLOURS = {"Awake": "green", "Offloaded": "blue", "Discarded": "magenta"}
_BAR = 60


class View:
    """Draws the stage; `log` collects lines for its lower part."""

    def __init__(self, stage: Stage, story: Story) -> None:
        self._stage, self._story = stage, story
        self._lines: deque[str] = deque(maxlen=12)

    def log(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def draw(self) -> RenderableType:
        """Return the picture of this moment."""
        story = self._story
        requests = f"{story.answered} answered · {story.lost} lost · {story.wrong} wrong"
        head = Text("\n".join(self._stage.shell_lines()), style="bold yellow")
        hint = Text(
            "kubectl -n demo get sm -w    kubectl -n demo annotate sm alice dormouse.dev/force=awake    Ctrl-C ends it"
        )
        return Group(
            head,
            hint,
            self._models(),
            Panel(self._device(), title="simulated device"),
            Panel("\n".join(self._lines), title=f"requests: {requests}"),
        )

    def _models(self) -> Table:
        table = Table(expand=True)
        for column in ("model", "ready", "tier", "why", "last decision"):
            table.add_column(column)
        for name, model in sorted(self._stage.models().items()):
            status = model.get("status", {})
            tier = status.get("tier", "…")
            ready = condition(model, "Ready")
            decision = status.get("lastDecision", {})
            table.add_row(
                name,
                ready.get("status", "…"),
                Text(tier, style=_COLOURS.get(tier, "")),
                f"{ready.get('reason', '')}: {ready.get('message', '')}",
                f"{decision.get('reason', '')}: {decision.get('message', '')}",
            )
        return table

    def _device(self) -> Text:
        device = self._stage.device()
        if device is None:
            return Text("no engine opened it yet")
        bar = Text()
        for colour, use in zip(("green", "cyan", "magenta"), sorted(device.owners.items()), strict=False):
            size = sum(use[1].values())
            bar.append("█" * round(_BAR * size / device.total), style=colour)
        bar.append("░" * max(0, _BAR - len(bar)), style="dim")
        bar.append(f"  {device.used / 2**30:.1f} of {device.total / 2**30:.0f} GiB")
        return bar
