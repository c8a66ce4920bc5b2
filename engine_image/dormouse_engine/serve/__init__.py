"""The entrypoint of an engine's image: `dormouse-engine serve` starts vLLM so that Dormouse can put it to sleep.

The environment (`settings.py`) becomes `vllm serve` flags; arguments go on behind them, so that they win. Three things
are not to be chosen, for without them the engine is unsafe or can't sleep: sleep mode, the dev endpoints **with** the
guard in front of them, and one API server process. Whoever asks for less is refused before anything starts
(`rules.py`). Then the preflight checks run, and the process becomes vLLM (`run.py`): signals and exit codes are the
engine's own.

Nothing here imports vllm or torch.
"""

from dormouse_engine.serve.command import Installed, Launch, build
from dormouse_engine.serve.errors import ServeError

__all__ = ["Installed", "Launch", "ServeError", "build"]
