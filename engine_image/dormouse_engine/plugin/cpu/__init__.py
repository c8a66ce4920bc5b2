"""Sleep mode for vLLM on a CPU: the same flags and calls as on a GPU, with RAM in the place of device memory.

A laptop shows the real thing: `--enable-sleep-mode` is accepted, the process's RSS falls by the weights at levels 1 and
2, and greedy output is the same after every wake.

    platform   the configuration: which engines can sleep, and their worker class
    worker     vLLM's CPU worker, with memory that sleeps
    memory     what sleeps, wakes and is discarded, and in which order
    moving     takes a loaded model into arenas;  kv does so for the KV cache
    linear     keeps weights out of packed forms;  store and room: where backups go, and whether they fit
    agreement  one step on all ranks, and one error
    depth      which engines must not go down to level 2;  report: the facts for the guard

Only standard library is imported here; `worker`, `moving` and `kv` need the engine's own packages.
"""

from __future__ import annotations

from dormouse_engine.plugin.cpu.platform import hooks
from dormouse_engine.plugin.hooks import install as install_hooks


def install() -> str:
    """Let this process's vLLM accept `--enable-sleep-mode`; returns "" or why it was left as it is."""
    return install_hooks(hooks())
