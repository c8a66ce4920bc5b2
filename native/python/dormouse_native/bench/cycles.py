"""The sequences of sleeps and wakes that every subject goes through, and what must hold after each."""

from dataclasses import dataclass

from dormouse_native.bench.measure import Record, machine_bytes
from dormouse_native.bench.rig import Content
from dormouse_native.bench.subjects import Subject, rest


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and with what pauses."""

    repeats: int = 5
    pause: float = 0.5  # seconds between a release and a wake that is to find the device at rest
    seed: int = 1


class Watched:
    """A subject, its record, and the checksum that its weights must keep."""

    def __init__(self, subject: Subject, record: Record, plan: Plan) -> None:
        self.subject = subject
        self.record = record
        self.plan = plan
        self.subject.content.fill(plan.seed)
        self.expected = self.subject.content.checksum()

    @property
    def content(self) -> Content:
        """The subject's bytes."""
        return self.subject.content

    def expect_now(self) -> None:
        """Take the content as it is for what must be kept from now on."""
        self.expected = self.content.checksum()

    def sleep(self, figure: str, level: int = 1) -> dict[str, object]:
        """One sleep."""
        return self.record.step(figure, lambda: self.subject.sleep(level)).details

    def wake(self, figure: str, pause: float = 0.0, *, kept: bool = True) -> None:
        """One wake, and a look at every byte of the weights."""
        rest(pause)
        self.record.step(figure, self.subject.wake)
        if kept:
            same = self.content.checksum() == self.expected
            self.record.check(
                f"weights differ after {figure} #{len(self.record.figures[figure])}", right=same
            )


def first_and_later(watched: Watched) -> None:
    """Measure the first sleep, then later ones; wakes after a pause and at once."""
    plan, record = watched.plan, watched.record
    before = machine_bytes()
    watched.sleep("first_sleep")
    record.fact("host_bytes_taken", before - machine_bytes())
    watched.wake("wake", plan.pause)
    for _ in range(plan.repeats):
        watched.sleep("later_sleep")
        watched.wake("wake", plan.pause)
    for _ in range(plan.repeats):
        watched.sleep("later_sleep")
        watched.wake("wake_at_once")


def discarding(watched: Watched) -> None:
    """Measure level 2: nothing is kept, so content is written anew at the end."""
    for _ in range(watched.plan.repeats):
        watched.sleep("level2_sleep", level=2)
        watched.wake("level2_wake", watched.plan.pause, kept=False)
    watched.content.fill(watched.plan.seed)
    watched.expect_now()
