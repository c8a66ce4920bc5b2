"""The probe of a real engine: what its workers say of their memory, added up.

The guard lives in the API server and holds no device memory itself; every figure comes from the workers
(`dormouse_engine.facts`). A worker that lives and does not answer makes the whole measurement fail: a sum
over the others would look like memory that became free.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dormouse_engine.facts.folder import RUN_DIR
from dormouse_engine.facts.model import DeviceFacts, WorkerFacts
from dormouse_engine.facts.read import read_folder
from dormouse_engine.guard.probe import DeviceMemory, HostProbe, Probe

PATIENCE_SECONDS: Final = 1.0
"""For all workers together; less than the meter's own patience."""


class SilentWorkersError(RuntimeError):
    """Workers live and tell nothing."""


class EngineProbe:
    """Asks the workers that publish in `folder`; `timeout` in seconds."""

    def __init__(self, folder: Path, *, timeout: float = PATIENCE_SECONDS) -> None:
        self._folder = folder
        self._timeout = timeout
        self._workers: tuple[WorkerFacts, ...] = ()

    def facts(self) -> Sequence[WorkerFacts]:
        """Ask every worker now; raises SilentWorkersError or RunDirError."""
        answers = read_folder(self._folder, self._timeout)
        if answers.silent:
            raise SilentWorkersError("; ".join(answers.silent))
        self._workers = answers.workers
        return self._workers

    def devices(self) -> Sequence[DeviceMemory]:
        """Every device once, with what all workers hold of it together."""
        by_device: dict[str, list[DeviceFacts]] = {}
        for worker in self._workers:
            if worker.device is not None:
                by_device.setdefault(worker.device.uuid, []).append(worker.device)
        return [
            DeviceMemory(
                uuid,
                total=seen[0].total,
                # Asked one after the other: the lowest promises nothing that is not there.
                free=min(device.free for device in seen),
                process=sum(device.process for device in seen),
            )
            for uuid, seen in sorted(by_device.items())
        ]

    def tags(self) -> dict[str, int] | None:
        """Bytes per tag when resident, over all workers; None where no worker knows."""
        total: dict[str, int] = {}
        for worker in self._workers:
            for name, tag in worker.tags.items():
                total[name] = total.get(name, 0) + tag.bytes
        return total or None

    def backup_bytes(self) -> int | None:
        """RAM held for backups, over all workers; None where no worker knows."""
        known = [worker.backup.committed for worker in self._workers if worker.backup is not None]
        return sum(known) if known else None


def default_probe() -> Probe:
    """Return the probe of an engine whose workers publish, or one that measures nothing."""
    folder = os.environ.get(RUN_DIR)
    return EngineProbe(Path(folder)) if folder else HostProbe()
