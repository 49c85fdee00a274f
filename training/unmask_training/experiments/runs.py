"""One run of an experiment: a detector from some generators and sources, and its logits on pictures that it did not see."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from unmask_training.data.chips import Row
from unmask_training.detector.export import load_network
from unmask_training.detector.fit import fit
from unmask_training.detector.network import Detector, read_state, start_from
from unmask_training.experiments.corpus import TRAINED_PARTS
from unmask_training.experiments.features import CLEAN, Store, Trunk
from unmask_training.experiments.heads import Examples, Head, choose, fit_head, joined, weights
from unmask_training.experiments.judging import Judging, distances, find_point
from unmask_training.experiments.settings import Setup
from unmask_training.measuring.measures import Floats
from unmask_training.tower.frozen import NAME as TOWER
from unmask_training.tower.frozen import frozen

_OUT_OF_FOLD: Final = "calibrated on out-of-fold scores of the training pictures' plain views"
# What the plain view weighs over all augmented ones together; they teach small and spoilt pictures, and blur the rest.
_PLAIN: Final = 2.5
_HELD_OUT: Final = "calibrated on the part `calibrate`, which was not trained on"


@dataclass(frozen=True, slots=True)
class Task:
    """What a run learns from; with `wide`, it is tested on every picture of the kinds it does not know, else on `val`."""

    sources: tuple[str, ...]
    generators: tuple[str, ...]
    wide: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """All that is learnt from."""
        return (*self.sources, *self.generators)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Logits and distances (N,) of the tested rows, the head that gave them, and how they are judged."""

    rows: tuple[Row, ...]
    logits: Floats
    distances: Floats
    head: Head
    judging: Judging
    facts: dict[str, Any]

    def of(self, kinds: Sequence[str]) -> tuple[list[Row], Floats, Floats]:
        """Rows, logits and distances of these kinds."""
        chosen = np.array([row.kind in set(kinds) for row in self.rows], dtype=bool)
        return [row for row, keep in zip(self.rows, chosen, strict=True) if keep], self.logits[chosen], self.distances[chosen]


def tested(setup: Setup, task: Task) -> list[Row]:
    """The rows of `val`, and with `wide` every row of a kind not learnt from; none whose group was learnt from."""
    learnt = {row.group for row in setup.corpus.of(task.kinds, TRAINED_PARTS)}
    wide = set() if not task.wide else {*setup.corpus.sources, *setup.corpus.generators} - set(task.kinds)
    return [row for row in setup.corpus.rows if (row.part == "val" or row.kind in wide) and row.group not in learnt]


def run(setup: Setup, task: Task) -> Outcome:
    """The outcome of a task; done once, then read from the output folder."""
    name = hashlib.sha256(json.dumps(asdict(task), sort_keys=True).encode()).hexdigest()[:16]
    path, rows = setup.out / "runs" / name / "outcome.npz", tested(setup, task)
    if path.is_file():
        return _read(path, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    outcome = _frozen(setup, task, rows) if setup.settings.protocol == "frozen" else _full(setup, task, rows, path.parent)
    outcome.facts.update(sources=list(task.sources), generators=list(task.generators), seconds=round(time.monotonic() - began))
    _write(path, outcome)
    return outcome


def store_of(setup: Setup, task: Task) -> Store:
    """The features by the trunk that the task's run stands on: the starting one, or the one that it trained."""
    network: Trunk
    if setup.settings.protocol == "frozen":
        network = _start(setup)
    else:
        run(setup, task)
        name = hashlib.sha256(json.dumps(asdict(task), sort_keys=True).encode()).hexdigest()[:16]
        network = load_network(setup.out / "runs" / name / "detector.pt")[0]
    return _store(setup, network)


def examples(setup: Setup, store: Store, rows: Sequence[Row]) -> Examples:
    """The plain and all augmented views of the rows, weighted by class, kind, drawn size and view."""
    recipe, views = setup.recipe, range(setup.settings.views + 1)
    parts = [_examples(rows, store.get(rows, view)) for view in views]
    both = joined(parts)
    # Sizes are drawn for augmented views only; the plain ones are as large as they are served.
    faces = np.concatenate([store.faces(rows, view) for view in views]) if setup.settings.views else None
    weight = weights(both.fake, both.kind, {**recipe.real, **recipe.synthetic}, faces, recipe.augment)
    weight[: len(rows)] *= _PLAIN * max(1, setup.settings.views)
    return replace(both, weight=weight / weight.mean())


def _examples(rows: Sequence[Row], features: Any) -> Examples:
    fake = np.array([row.label == "synthetic" for row in rows], dtype=bool)
    kinds, groups = (np.array([getattr(row, name) for row in rows], dtype=np.str_) for name in ("kind", "group"))
    return Examples(features, fake, kinds, groups, weights(fake, kinds, {}))


def _frozen(setup: Setup, task: Task, rows: list[Row]) -> Outcome:
    """A head on the starting trunk's features; strength and operating point from out-of-fold scores."""
    store, known = store_of(setup, task), setup.corpus.of(task.kinds, TRAINED_PARTS)
    _both(known, task)
    learnt, plain = examples(setup, store, known), _examples(known, store.get(known))
    strength, held, losses = choose(learnt, plain, setup.settings.seed)
    head, judging = fit_head(learnt, strength), find_point(held, known, _OUT_OF_FOLD)
    facts = {"strength": strength, "out_of_fold_loss": losses, "pictures": len(known)}
    return _outcome(setup, store, head, judging, rows, known=(known, known), facts=facts)


def _full(setup: Setup, task: Task, rows: list[Row], folder: Path) -> Outcome:
    """The whole network, trained from the starting weights; goes on from its checkpoint if it was cut off."""
    told = asdict(setup.recipe) | {
        "real": {kind: setup.recipe.real[kind] for kind in task.sources},
        "synthetic": {kind: setup.recipe.synthetic[kind] for kind in task.generators},
    }
    checkpoint = fit(told, setup.corpus.folder, folder, setup.weights, resume=True)
    network, state = load_network(checkpoint)
    store, bank = _store(setup, network), setup.corpus.of(task.kinds, ("fit",))
    reference = setup.corpus.of(task.kinds, ("calibrate",))
    line = network.synthetic
    head = Head(line.weight.detach().cpu().double().numpy()[0], float(line.bias.detach()[0]))
    held = head(store.get(reference)) if reference else None
    facts = {"steps": state["step"], "start": dict(state["start"]), "pictures": len(bank)}
    return _outcome(setup, store, head, find_point(held, reference, _HELD_OUT), rows, known=(bank, reference), facts=facts)


def _outcome(
    setup: Setup,
    store: Store,
    head: Head,
    judging: Judging,
    rows: list[Row],
    *,
    known: tuple[list[Row], list[Row]],
    facts: dict[str, Any],
) -> Outcome:
    """Logits and distances of the tested rows; the doubt from how far known faces (bank, reference) lie from the bank's."""
    bank, reference = known
    features, groups = store.get(bank, CLEAN), [row.group for row in bank]

    def far(asked: Sequence[Row]) -> Floats:
        return distances(store.get(asked), [row.group for row in asked], features, groups)

    if setup.settings.doubt and reference:
        judging = replace(judging, doubt=float(np.quantile(far(reference), 1.0 - setup.settings.doubt)))
    return Outcome(tuple(rows), head(store.get(rows)), far(rows), head, judging, facts)


def _both(rows: Sequence[Row], task: Task) -> None:
    if {row.label for row in rows} != {"real", "synthetic"}:
        raise ValueError(
            f"nothing to learn from: no training pictures of {', '.join(task.sources)} or of {', '.join(task.generators)}"
        )


def _start(setup: Setup) -> Trunk:
    """The network with the starting weights; a checkpoint brings its own families."""
    if setup.weights is None:
        raise ValueError("a frozen trunk needs weights")
    if setup.settings.trunk == TOWER:
        recipe, folder = setup.recipe, setup.out / "features"
        return frozen(setup.weights, folder, recipe.size, setup.corpus.chips, recipe.augment, setup.settings.seed)
    state = read_state(setup.weights)
    network = Detector(state.get("families", ("any",)), 0.0, setup.settings.trunk)
    start_from(network, setup.weights)
    return network


def _store(setup: Setup, network: Trunk) -> Store:
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    recipe, folder = setup.recipe, setup.out / "features"
    return Store(folder, network.to(device), setup.corpus.chips, recipe.size, recipe.augment, setup.settings.seed)


def _write(path: Path, outcome: Outcome) -> None:
    told = json.dumps({"judging": asdict(outcome.judging), "facts": outcome.facts, "paths": [row.path for row in outcome.rows]})
    aside = path.with_suffix(".writing")
    with aside.open("wb") as file:
        np.savez(
            file,
            logits=outcome.logits,
            distances=outcome.distances,
            weight=outcome.head.weight,
            bias=np.array(outcome.head.bias),
            told=np.array(told),
        )
    aside.replace(path)


def _read(path: Path, rows: Sequence[Row]) -> Outcome:
    with np.load(path) as stored:
        told, head = json.loads(str(stored["told"])), Head(stored["weight"], float(stored["bias"]))
        logits, far = stored["logits"], stored["distances"]
    if told["paths"] != [row.path for row in rows]:
        raise ValueError(f"{path}: tested other pictures; take another --out")
    return Outcome(tuple(rows), logits, far, head, Judging(**told["judging"]), told["facts"])
