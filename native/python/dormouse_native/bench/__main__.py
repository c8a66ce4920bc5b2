"""The command: which sections run, in which order, with which memory freed in between."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dormouse_native import Pool
from dormouse_native.bench.cycles import Plan, Watched, discarding, first_and_later
from dormouse_native.bench.link import measure_link, use_host_memory
from dormouse_native.bench.local import in_turn, simulated
from dormouse_native.bench.measure import Record, machine_bytes
from dormouse_native.bench.ours import Setting, measure_ours
from dormouse_native.bench.plain import PlainRig
from dormouse_native.bench.report import Report, gpu_summary, local_summary
from dormouse_native.bench.shapes import GIB, SHAPES, Shape, rounded_bytes
from dormouse_native.bench.subjects import StoreKind, Subject
from dormouse_native.bench.without import measure_without

Word = TypeVar("Word", bound=str)


def main(arguments: list[str]) -> int:
    """Measure what is asked for; 1 when a section failed or a byte was wrong."""
    asked = _arguments(arguments)
    report = Report(asked.out, {name: str(value) for name, value in vars(asked).items()})
    plan = Plan(repeats=asked.repeats, pause=asked.pause)
    summary: dict[str, Any] = {}
    if "cuda" in asked.drivers:
        summary |= _on_gpu(report, asked, plan)
    if "host" in asked.drivers or "sim" in asked.drivers:
        summary |= _on_this_machine(report, asked, plan)
    return report.finish(summary)


def _on_this_machine(report: Report, asked: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    shape = SHAPES[asked.shape or "laptop"]
    if "host" in asked.drivers:
        setting = Setting(PlainRig(virtual=False), SHAPES["tiny"], Plan(asked.repeats, 0.0), "plain")
        for store in asked.stores:
            _ours(report, "host", store, setting)
            _without(report, "host", store, setting)
        report.section(
            "ours", lambda ours: in_turn(shape, asked.stores[0], plan, ours, _beside(report, "stock"))
        )
    if "sim" in asked.drivers:
        report.section("sim", lambda record: simulated(plan, record))
    return local_summary(report.records)


def _on_gpu(report: Report, asked: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    from dormouse_native.bench import rivals, torch_rig  # noqa: PLC0415 - only where a GPU is asked for

    rig = torch_rig.TorchRig(asked.device)
    torch = rig.torch
    shape = SHAPES[asked.shape or "qwen3-32b"]
    properties = torch.cuda.get_device_properties(asked.device)
    report.about(device=properties.name, device_gib=round(properties.total_memory / GIB, 1), driver=_driver())
    report.section("link", lambda record: measure_link(torch, record, plan.repeats))
    rig.forget_host_memory()
    if asked.use_host_memory:
        report.section(
            "host_memory", lambda record: use_host_memory(torch, record, rounded_bytes(shape) + 20 * GIB)
        )
    for number, store in enumerate(asked.stores):
        setting = Setting(rig, shape, plan, "cuda", brief=number > 0)
        _ours(report, "cuda", store, setting, asked.device)
        rig.tidy(report.records[f"ours-{store}"])
        if _without(report, "cuda", store, setting, asked.device):
            rig.tidy(report.records[f"ours-{store}"])
    makers: dict[str, Callable[[], Subject]] = {
        "cumem": lambda: rivals.CuMem(rig, shape),
        "tms": lambda: rivals.MemorySaver(rig, shape),
    }
    for name in asked.compare:
        report.section(name, functools.partial(_rival, makers[name], shape, plan))
        rig.tidy(report.records[name])
    return gpu_summary(report.records, shape)


def _ours(report: Report, driver: str, store: StoreKind, setting: Setting, device: int = 0) -> None:
    report.section(
        f"ours-{store}",
        lambda record: measure_ours(lambda: _open(driver, device, store, setting), setting, record),
    )


def _without(report: Report, driver: str, store: StoreKind, setting: Setting, device: int = 0) -> bool:
    """Whether there is something to compare: a ring is never pulled, and what failed has no wakes."""
    name = f"ours-{store}"
    if store != "registered" or name in report.failures:
        return False
    report.section(
        name,
        lambda record: measure_without(
            lambda: _open(driver, device, store, setting, bare=True),
            setting.rig,
            setting.shape,
            setting.plan,
            record,
        ),
    )
    return True


def _open(driver: str, device: int, store: StoreKind, setting: Setting, *, bare: bool = False) -> Pool:
    """Make a pool; a bare one neither pulls nor collects."""
    _need_host_memory(setting.shape.weights_bytes)
    keep = setting.shape.keep_up_to
    if bare:
        return Pool(driver, device, store=store, keep_up_to=keep, pull=False, collect_seconds=0)
    return Pool(driver, device, store=store, keep_up_to=keep)


def _rival(make: Callable[[], Subject], shape: Shape, plan: Plan, record: Record) -> None:
    _need_host_memory(rounded_bytes(shape))
    subject = make()
    try:
        watched = Watched(subject, record, plan)
        record.fact("version", getattr(subject, "version", ""))
        first_and_later(watched)
        try:
            discarding(watched)
        except NotImplementedError as reason:
            record.fact("level2", str(reason))
    finally:
        subject.close()


def _need_host_memory(size: int) -> None:
    """Refuse what would drive the machine out of memory: that ends the run, and with it what was measured."""
    if machine_bytes() < size + GIB // 2:
        raise MemoryError(
            f"{size / GIB:.1f} GiB of host memory are needed, {machine_bytes() / GIB:.1f} are there"
        )


def _beside(report: Report, name: str) -> Record:
    return report.records.setdefault(name, Record(name))


def _driver() -> str:
    """Version of the kernel's driver."""
    version = Path("/proc/driver/nvidia/version")
    return version.read_text().splitlines()[0] if version.exists() else ""


def _some_of(*known: Word) -> Callable[[str], list[Word]]:
    """Read words with commas between them; an unknown one is refused here and not after minutes of measuring."""

    def read(text: str) -> list[Word]:
        by_name = {str(word): word for word in known}
        asked = [word for word in text.split(",") if word]
        for word in asked:
            if word not in by_name:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(by_name)}")
        return [by_name[word] for word in asked]

    return read


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dormouse_native.bench", description=__doc__)

    parser.add_argument(
        "--driver",
        dest="drivers",
        type=_some_of("cuda", "host", "sim"),
        default=["host", "sim"],
        help="cuda, host, sim",
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), help="default: qwen3-32b on cuda, laptop on host")
    parser.add_argument("--compare", type=_some_of("cumem", "tms"), default=[], help="cumem, tms (cuda only)")
    stores: Callable[[str], list[StoreKind]] = _some_of("auto", "registered", "ring")
    parser.add_argument(
        "--stores", type=stores, default=stores("registered,ring"), help="auto, registered, ring"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between a release and a wake")
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument(
        "--use-host-memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="touch and pin the host memory that will be used before it is measured (cuda)",
    )
    parser.add_argument("--out", type=Path, help="JSON, written after every section")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    if "torch" in sys.modules:
        # Foreign allocators abort when the interpreter takes their pools apart. Everything is written, so end here.
        os._exit(status)
    sys.exit(status)
