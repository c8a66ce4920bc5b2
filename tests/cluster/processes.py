"""Child processes that can't outlive the harness, and the records by which leftovers are found.

Three nets, each for what the one before lets through:
1. `Child.stop` ends the child's whole process group, politely first.
2. The kernel kills the child when the process that started it dies (PR_SET_PDEATHSIG, Linux). It counts
   from the *thread* that forked, so every fork happens in one thread that lives as long as the process.
3. A record `<state>/pids/<name>.json` holds pid and start time, and the child's environment names the
   state folder. `tear_down` ends what is left of a harness that died. A pid that was given to another
   process since is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MARKER = "DORMOUSE_CLUSTER_STATE"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02
_LINUX = sys.platform == "linux"
_LIBC = ctypes.CDLL(None, use_errno=True) if _LINUX else None
_forks = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fork")


class Child:
    """One running child process, leader of its own session; `log` receives its output (appended)."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        state: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._record = record_path(state, name)
        self._process = _forks.submit(
            _spawn, argv, env=env, cwd=cwd, state=state, log=log, death_signal=death_signal
        ).result()
        write_record(self._record, self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Wait for the end; None when it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once, with its children."""
        self.stop(0)

    def stop(self, seconds: float) -> None:
        """Send SIGTERM to it, and SIGKILL to what is left of its group when it ended or after `seconds`."""
        if seconds > 0 and self._process.poll() is None:
            self._process.terminate()
            self.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._record.unlink(missing_ok=True)

    async def ended(self) -> int:
        """Wait for its end and return the exit code, without a thread and without asking over and over."""
        if _LINUX:
            with contextlib.suppress(ProcessLookupError):
                await _readable(os.pidfd_open(self._process.pid))
        while True:
            # Where there is no pidfd, only waitpid can tell.
            if (code := self._process.poll()) is not None:
                return code
            await asyncio.sleep(_POLL_SECONDS)

    async def stop_async(self, seconds: float) -> None:
        """Do what `stop` does, without blocking the event loop."""
        if seconds > 0 and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended(), seconds)
        self.kill()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of its output, for error messages."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return a function for the child, between fork and exec: it makes the kernel end it with its parent."""
    parent = os.getpid()

    def arrange() -> None:
        if _LIBC is not None:
            if death_signal != signal.SIGKILL:
                # What a script starts in its background ignores SIGINT, its children with it: it would end nobody.
                signal.signal(death_signal, signal.SIG_DFL)
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return arrange


def start_time(pid: int) -> str | None:
    """Return what tells this process from a later one with the same pid; None when there is none."""
    if _LINUX:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The command name is in parentheses and may itself hold spaces and parentheses.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None


def record_path(state: Path, name: str) -> Path:
    """Return where the record of the process `name` lies."""
    return state / "pids" / f"{name}.json"


def write_record(path: Path, pid: int) -> None:
    """Note a process for `tear_down` and `is_running`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "started": start_time(pid)}), encoding="utf-8")


def running_pid(record: Path) -> int | None:
    """Return the recorded pid if that very process still runs."""
    try:
        noted = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    pid, started = noted["pid"], noted["started"]
    return pid if started is not None and start_time(pid) == started else None


def leftovers(state: Path) -> list[int]:
    """Return the pids of every process of this state folder that still runs, our own process excepted."""
    found = {running_pid(record) for record in (state / "pids").glob("*.json")}
    if _LINUX:
        mark = f"{MARKER}={state.resolve()}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and start_time(int(entry.name)) is not None:
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.add(int(entry.name))
    return sorted(pid for pid in found if pid is not None and pid != os.getpid())


def tear_down(state: Path, seconds: float = 10.0) -> list[int]:
    """Kill every process of this state folder; returns the pids it killed. Never touches another process."""
    killed: list[int] = []
    deadline = time.monotonic() + seconds
    while (pids := leftovers(state)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.extend(pid for pid in pids if pid not in killed)
        time.sleep(0.05)
    for record in (state / "pids").glob("*.json"):
        record.unlink(missing_ok=True)
    return killed


def _spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    state: Path,
    log: Path,
    death_signal: signal.Signals,
) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**(os.environ if env is None else env), MARKER: str(state.resolve())},
            start_new_session=True,
            # It makes three system calls, which is safe after a fork in a process with threads.
            preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 - see above
        )


async def _readable(descriptor: int) -> None:
    """Wait until a pidfd says that its process ended, and close it."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
