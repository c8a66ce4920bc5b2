"""Collect: one frozen snapshot of what the cluster and the engines said last. Reads memory only, awaits nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dormouse.domain import force, ledger, summary
from dormouse.domain.snapshot import OBSERVED, UNKNOWN_DEVICE, DeviceKey, Engine, Model, Reach, Snapshot
from dormouse.domain.states import UNSETTLED, EngineState
from dormouse.runtime.neighbourhood import Neighbourhood

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dormouse.cluster.store import Store
    from dormouse.cluster.views import ModelView, PodView
    from dormouse.domain.snapshot import EngineKey, ModelKey
    from dormouse.runtime.attempts import AttemptBook
    from dormouse.runtime.ports import Engines
    from dormouse.runtime.roster import Roster


@dataclass(slots=True)
class Collector:
    """Builds snapshots; `template_error` says what the API server thinks of a model's Deployment."""

    store: Store
    engines: Engines
    roster: Roster
    attempts: AttemptBook
    template_error: Callable[[ModelKey], str | None]
    clock: Callable[[], float]
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)
    neighbourhood: Neighbourhood = field(default_factory=Neighbourhood)
    _first_seen: dict[EngineKey, tuple[str, float]] = field(default_factory=dict)
    _forgiven: dict[EngineKey, int] = field(default_factory=dict)
    """Restarts of a container that no longer count: it has answered since, or they were before our time."""
    _generations: dict[ModelKey, tuple[str, int]] = field(default_factory=dict)
    """By uid, too: a model that was deleted and made anew begins at generation 1 again."""

    def forget(self, gone: Iterable[EngineKey]) -> None:
        """Drop what is remembered of engines that are gone."""
        for key in gone:
            self._first_seen.pop(key, None)
            self._forgiven.pop(key, None)
            self.neighbourhood.forget(key)
            self.attempts.forgive(key)

    def known(self) -> set[EngineKey]:
        """Return the engines that something is remembered of."""
        return set(self._first_seen)

    def respect_generation(self, view: ModelView) -> None:
        """Give a model whose spec changed all its attempts back: the user may have mended it."""
        generation = (view.uid, view.generation)
        if self._generations.get(view.key) == generation:
            return
        if view.key in self._generations:
            self.attempts.forgive_model(view.key, [pod.key for pod in self.store.pods_of(view.key)])
        self._generations[view.key] = generation

    # ── one engine, one model ────────────────────────────────────────────────────────────────────────────

    def engine(self, key: EngineKey) -> Engine | None:
        """Return one engine as observed now; None when its pod is gone, going, or not its model's."""
        pod = self.store.pod(key)
        if pod is None or pod.deleting:
            return None
        view = self.roster.view(pod.model)
        theirs = self.roster.orphaned(pod.model) if view is None else not self.roster.stranger(view, pod)
        return self._engine(pod) if theirs else None

    def books_of(self, devices: Iterable[DeviceKey]) -> dict[DeviceKey, ledger.Book]:
        """Return the freshest measurement of some devices."""
        there = (self.engine(key) for key in self.neighbourhood.on(devices))
        return ledger.books(engine for engine in there if engine is not None)

    def engines_of(self, key: ModelKey) -> list[Engine]:
        """Return the engines of one model."""
        return [self._engine(pod) for pod in self.roster.pods_of(key)]

    def census(self) -> tuple[Counter[str], Counter[str]]:
        """Return models by tier and engines by state, for metrics."""
        tiers: Counter[str] = Counter()
        states: Counter[str] = Counter()
        for key in self.store.models():
            engines = self.engines_of(key)
            states.update(engine.state.value for engine in engines)
            tier = summary.tier(engines)
            tiers[tier.value if tier else "Unknown"] += 1
        return tiers, states

    def model(self, key: ModelKey) -> Model | None:
        """Return one model, or what stands for it where only orphans are left; None when it can't be read."""
        view = self.roster.view(key)
        if view is None or view.model is None:
            return self.roster.orphans_model(key) if self.roster.orphaned(key) else None
        return Model(
            key=key,
            uid=view.uid,
            generation=view.generation,
            spec=view.model.spec,
            managed=view.model.managed,
            force=force.read(view.annotations, self.wall()),
            template_error=self.template_error(key),
            restarts=self.attempts.restarts(key),
            strangers=tuple(
                text
                for pod in self.store.pods_of(key)
                if not pod.deleting and (text := self.roster.stranger(view, pod))
            ),
        )

    def snapshot(self, root: ModelKey, locked: frozenset[DeviceKey]) -> Snapshot:
        """Return the group of engines that a decision about `root` reads: its own, and all that share devices."""
        engines = {engine.key: engine for engine in self.engines_of(root)}
        for engine in engines.values():
            self.neighbourhood.place(engine.key, engine.devices)

        def follow(key: EngineKey) -> bool:
            """Take an engine in; whether its own neighbours matter too."""
            engine = engines.get(key) or self.engine(key)
            if engine is None:
                return False
            engines[key] = engine
            return not _leaf(engine)

        self.neighbourhood.walk(tuple(engines), follow)
        models = {key: model for key in {e.model for e in engines.values()} if (model := self.model(key))}
        present = tuple(engine for _, engine in sorted(engines.items()) if engine.model in models)
        return Snapshot(models=models, engines=present, locked=locked)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _engine(self, pod: PodView) -> Engine:
        seen_id, since = self._first_seen.setdefault(pod.key, (pod.container_id, self.clock()))
        if seen_id != pod.container_id:
            since = self.clock()
            self._first_seen[pod.key] = (pod.container_id, since)
        somewhere = frozenset({DeviceKey(pod.node, UNKNOWN_DEVICE)}) if pod.node else frozenset[DeviceKey]()
        stopped = not pod.container_id or pod.crashed
        seen = None if stopped else self.engines.observe(pod.key)
        if seen is not None and seen.state not in UNSETTLED:
            self._forgiven[pod.key] = pod.crashes
        crashes = pod.crashes - self._forgiven.setdefault(pod.key, pod.crashes)
        bare = Engine(
            key=pod.key,
            model=pod.model,
            node=pod.node,
            state=EngineState.PENDING if stopped else EngineState.CONNECTING,
            tier=None,
            reach=Reach.NOT_YET,
            devices=somewhere,
            age_seconds=self.clock() - since,
            crashes=crashes,
            crashed=pod.crashed,
            restartable=pod.owner is not None,
            trouble=pod.trouble,
            attempts=self.attempts.of(pod.key),
        )
        if seen is None:
            return bare
        return replace(bare, **{name: getattr(seen, name) for name in OBSERVED})


def _leaf(engine: Engine) -> bool:
    """Whether an engine is asked nothing and so pulls nobody into a decision."""
    return engine.state in UNSETTLED or (engine.state is EngineState.PENDING and not engine.crashed)
