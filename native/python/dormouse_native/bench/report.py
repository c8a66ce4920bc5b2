"""The report: written whole after every section, so that a crash keeps what was measured."""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dormouse_native.bench.local import FIGURES
from dormouse_native.bench.measure import Record, host_bytes, median, ratio, say
from dormouse_native.bench.shapes import GIB, Shape
from dormouse_native.bench.without import worth


class Report:
    """Records by subject, failures by section, and the file they go to."""

    def __init__(self, out: Path | None, settings: dict[str, Any]) -> None:
        self._out = out
        self.records: dict[str, Record] = {}
        self.failures: dict[str, str] = {}
        self._about = {"settings": settings, "machine": machine()}

    def section(self, name: str, run: Callable[[Record], None]) -> None:
        """Run a section; what it raises is kept and the next one starts all the same."""
        record = self.records.setdefault(name, Record(name))
        say(f"== {name}")
        try:
            run(record)
        except Exception as failure:  # noqa: BLE001 - a section may fail in any way; the others still count
            self.failures[name] = "".join(traceback.format_exception(failure))
            say(f"== {name} FAILED: {failure!r}")
        self.save()

    def about(self, **facts: Any) -> None:
        """Add to what is said of the machine."""
        self._about["machine"].update(facts)

    def save(self, **more: Any) -> None:
        """Write the file anew."""
        if self._out is None:
            return
        whole = {
            **self._about,
            **more,
            "failures": self.failures,
            "records": {name: record.as_json() for name, record in self.records.items()},
        }
        half = self._out.with_suffix(".part")
        half.write_text(json.dumps(whole, indent=1) + "\n")
        half.replace(self._out)

    def finish(self, summary: dict[str, Any]) -> int:
        """Write and print the summary as the last line; the exit status."""
        wrong = {name: record.wrong for name, record in self.records.items() if record.wrong}
        if self.failures or wrong:
            summary["failed"] = sorted(self.failures)
            summary["wrong"] = wrong
        self.save(summary=summary)
        for name, text in self.failures.items():
            say(f"-- {name}\n{text}")
        say(json.dumps(summary), stamp=False)
        return 1 if self.failures or wrong else 0


def machine() -> dict[str, Any]:
    """Where and when this ran, and with what."""
    versions = {}
    for package in ("dormouse-native", "torch", "vllm", "torch_memory_saver"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "host_gib": round(host_bytes("MemTotal") / GIB, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "huge_pages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "versions": versions,
    }


def local_summary(records: dict[str, Record]) -> dict[str, Any]:
    """Seconds of the stock pattern over ours, ours on the simulated H200, and what pulls and collecting are worth."""
    ours, stock, simulated = (records.get(name) for name in ("ours", "stock", "sim"))
    summary: dict[str, Any] = {}
    if ours and stock:
        for figure in ("later_sleep", "first_sleep", "wake"):
            summary[f"{figure}_x"] = _rounded(ratio(stock.median(figure), ours.median(figure)))
    if simulated:
        summary["sim_h200"] = {f"{figure}_s": _rounded(simulated.median(figure)) for figure in FIGURES}
    return summary | _worth(records)


def gpu_summary(records: dict[str, Record], shape: Shape) -> dict[str, Any]:
    """Medians of each subject, how many times faster ours are, and the share of the link that a wake reaches."""
    link = records.get("link")
    subjects = {name: record for name, record in records.items() if "first_sleep" in record.figures}
    summary: dict[str, Any] = {
        name: {figure: _rounded(median(values)) for figure, values in record.figures.items()}
        for name, record in subjects.items()
    }
    rivals = [name for name in subjects if not name.startswith("ours")]
    for name, record in subjects.items():
        if not name.startswith("ours"):
            continue
        for rival in rivals:
            summary[f"{name}_x_{rival}"] = {
                figure: _rounded(ratio(subjects[rival].median(figure), record.median(figure)))
                for figure in record.figures
                if figure in subjects[rival].figures
            }
        if link:
            seconds = ratio(shape.weights_bytes, link.median("to_device"))
            summary[f"{name}_wake_of_link"] = _rounded(ratio(seconds, record.median("wake")))
    if link:
        summary["link_seconds"] = {
            figure: _rounded(ratio(shape.weights_bytes, link.median(figure)))
            for figure in ("to_device", "to_host")
        }
    return summary | _worth(records)


def _worth(records: dict[str, Record]) -> dict[str, Any]:
    return {
        name: {figure: _rounded(value) for figure, value in figures.items()}
        for name, figures in worth(records).items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _first_line(path: str) -> str:
    file = Path(path)
    return file.read_text().splitlines()[0] if file.exists() else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
