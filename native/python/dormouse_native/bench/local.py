"""Our pool and the stock pattern in turn, many times over, on memory of this machine; and our pool in virtual time."""

import ctypes
import itertools
from collections.abc import Callable

from dormouse_native import Pool
from dormouse_native.bench.cycles import Plan, Watched
from dormouse_native.bench.measure import Record
from dormouse_native.bench.plain import PlainRig
from dormouse_native.bench.shapes import MIB, SHAPES, Shape
from dormouse_native.bench.stock import Block, Stock
from dormouse_native.bench.subjects import Ours, StoreKind, Subject

_numbers = itertools.count()

FIGURES = ("first_sleep", "later_sleep", "wake")


def one_round(make: Callable[[], Subject], record: Record, plan: Plan) -> None:
    """Take a fresh subject through its first sleep, a later one, and the wakes after both."""
    subject = make()
    try:
        watched = Watched(subject, record, plan)
        watched.sleep("first_sleep")
        watched.wake("wake")
        watched.sleep("later_sleep")
        watched.wake("wake")
    finally:
        subject.close()


def use_memory(size: int) -> None:
    """Write to this much memory once: a virtual machine's costs extra at its first use, whoever is first."""
    block = Block(size)
    ctypes.memset(block.address, 1, size)
    block.close()


def in_turn(shape: Shape, store: StoreKind, plan: Plan, ours: Record, stock: Record) -> None:
    """Run rounds of both; who comes first changes from round to round."""
    rig = PlainRig(virtual=False)

    def make_ours() -> Subject:
        pool = Pool("host", store=store, keep_up_to=shape.keep_up_to)
        return Ours(pool, rig, shape)

    use_memory(3 * shape.total_bytes)
    rounds: list[tuple[Callable[[], Subject], Record]] = [
        (make_ours, ours),
        (lambda: Stock(shape), stock),
    ]
    for make, _ in rounds:
        one_round(make, Record("warm-up"), plan)
    for number in range(plan.repeats):
        for make, record in rounds if number % 2 else reversed(rounds):
            one_round(make, record, plan)


def simulated(plan: Plan, record: Record) -> None:
    """Measure the real shape on a simulated H200 with 16 cores: the same pool, its clock played forward."""
    shape = SHAPES["qwen3-32b"]
    rig = PlainRig(virtual=True)
    for _ in range(plan.repeats):
        pool = Pool("sim", threads=16)
        subject = Ours(pool, rig, shape)
        watched = Watched(subject, record, plan)
        for sleep in ("first_sleep", "later_sleep"):
            watched.sleep(sleep)
            idle(pool, plan.pause)
            watched.wake("wake")
        watched.sleep("later_sleep")
        watched.wake("wake_at_once")
        subject.close()


def idle(pool: Pool, seconds: float) -> None:
    """Let virtual time pass. It passes only where something waits: here a slow staging of memory nobody needs."""
    if seconds:
        size = 16 * MIB
        # A tag of its own each time: one without segments sleeps along with the others.
        address = pool.malloc(size, f"idle-{next(_numbers)}")
        pool.stage(bytes_per_second=size / seconds, piece_bytes=size)
        pool.wait_staged()
        pool.free(address)
