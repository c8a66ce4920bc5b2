"""The command line: `dormouse operator`, `dormouse version`."""

from __future__ import annotations

import asyncio
import sys

import typer

from dormouse import __version__
from dormouse.errors import DormouseError, LeadershipLostError
from dormouse.settings import LogFormat, Settings
from dormouse.telemetry import logs

app = typer.Typer(
    help="Dormouse: many LLM engines share accelerators; idle ones sleep, a request wakes them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    pass


def _variables() -> str:
    """Return what `dormouse operator --help` says of the environment."""
    lines = ["Environment variables, read once at start; durations are seconds:"]
    for name, default, meaning in Settings.variables():
        lines.append(f"{name}: {meaning}" + (f" Default: {default}." if default else ""))
    return "\n\n".join(lines)


@app.command(epilog=_variables())
def operator() -> None:
    """Run the operator. It is configured by environment variables alone."""
    # Imported here: `dormouse version` must not wait for a Kubernetes client.
    from dormouse.runtime.operator import Operator  # noqa: PLC0415  (see above)

    settings = Settings.read()
    logs.configure(json=settings.log_format is LogFormat.JSON, level=settings.log_level)

    async def run() -> None:
        await Operator(settings).run()

    asyncio.run(run())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; errors of ours end it with one line and a code: 1, or 3 when leadership was lost."""
    try:
        app()
    except LeadershipLostError as error:
        sys.stderr.write(f"dormouse: {error}\n")
        sys.exit(3)
    except DormouseError as error:
        sys.stderr.write(f"dormouse: {error}\n")
        sys.exit(1)
