"""What the platform costs on this machine, as ratios within one run: `python -m bench.distributed` from the checkout.

  cost       processor time of our own processes a picture and hop, the handlers doing nothing (a picture has 5 hops);
             servers and the submitting process are not counted, reading the picture's blob at each stage is
  ratio      pictures per second end to end over what Triton alone does with the same inferences, in turns
  latency    from submission to decision at half of that load, arrivals by chance (Poisson)
  scale      pictures per second of two `align` workers over one: each picture waiting 150 ms as for a model server elsewhere
  store      the store's calls with 100 000 cases over those with 1 000
  parity     the same pictures of a corpus (--faces or UNMASK_FACES) judged in one process and by the platform

All parts but parity run unless some are named.  The mix is JPEGs of 1024 px with one face, each under bytes of its own, all
three models asked.  Real servers (Postgres, a broker, SeaweedFS, Triton on the processor) run on the same processors:
wall-clock figures of different runs do not compare, ratios do.  It ends with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from uuid import uuid4

import numpy as np
import sqlalchemy as sa
from bench.rig import bound, parity, pictures, store
from bench.rig.cpu import difference, spent_ms
from bench.rig.platform import ROOT, SINGLE_WORKERS, TENANT, Rig, cores, rig
from bench.rig.spy import table, watched

from unmask.adapters.store_rows import from_microseconds
from unmask.adapters.store_tables import cases, decisions
from unmask_dev.stack import Broker

_HOPS: Final = 5
_COST_MS: Final = 2.0
_RATIO: Final = 0.50
_SPY_SECONDS: Final = 8


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 3
    noop: int = 400
    real: int = 160
    latency: int = 200
    scale: int = 60
    many: int = 100_000


QUICK: Final = Sizes(rounds=1, noop=150, real=60, latency=60, scale=40, many=10_000)


@dataclass(frozen=True)
class Run:
    """What was asked for."""

    sizes: Sizes
    seed: int
    mix: pictures.Unseen
    originals: list[bytes]
    profile: bool


def cost(on: Rig, run: Run) -> list[str]:
    """Prints milliseconds a hop; what is missed."""
    found = []
    with on.workers(noop=True) as pids:
        blobs = pictures.Unseen([np.random.default_rng(run.seed).bytes(150_000)], run.seed)
        on.run(blobs.take(100))
        for _ in range(run.sizes.rounds):
            spent, seconds = _spent(on, pids, lambda: on.run(blobs.take(run.sizes.noop))[1])
            found.append(sum(spent[name] for name in pids) / run.sizes.noop / _HOPS)
            print(f"  {run.sizes.noop / seconds:.1f} pictures/s, {found[-1]:.2f} ms a hop; ", end="")
            print(f"ms a picture: {_each(spent, run.sizes.noop)}")
        _profiled(on, run, pids, blobs, 4 * run.sizes.noop)
    middle = statistics.median(found)
    print(f"cost       {middle:.2f} ms of processor time a hop (target {_COST_MS})")
    return [f"cost {middle:.2f} ms a hop, wanted {_COST_MS}"] if middle > _COST_MS else []


def ratio(on: Rig, run: Run) -> tuple[float, list[str]]:
    """Prints pictures per second end to end over Triton's own; pictures per second, and what is missed."""
    calls, size = bound.recorded(on, run.originals), run.sizes.real
    print(f"  inferences a picture: {sum(map(len, calls)) / len(calls):.2f}")
    walls, processors, speeds = [], [], []
    with on.workers() as pids:
        on.run(run.mix.take(24))
        bound.seconds(on, calls, 24, 4 * cores())
        for _ in range(run.sizes.rounds):
            alone = [_spent(on, {}, lambda: bound.seconds(on, calls, size // 2, 4 * cores()))]
            spent, seconds = _spent(on, pids, lambda: on.run(run.mix.take(size))[1])
            alone.append(_spent(on, {}, lambda: bound.seconds(on, calls, size // 2, 4 * cores())))
            # Both halves around the whole, so that a machine that slows down slows both sides.
            fastest = sum(one[1] for one in alone)
            least = sum(one[0]["triton"] + one[0]["submit"] for one in alone)
            speeds.append(size / seconds)
            walls.append(fastest / seconds)
            processors.append(least / sum(spent.values()))
            print(f"  {speeds[-1]:.1f} pictures/s, Triton alone {size // 2 * 2 / fastest:.1f}: {walls[-1]:.3f}; ", end="")
            print(f"of processor time {processors[-1]:.3f}; ms a picture: {_each(spent, size)}")
        _profiled(on, run, pids, run.mix, size)
    middle = statistics.median(walls)
    print(f"ratio      {middle:.3f} (target {_RATIO}); of processor time, which other load moves less: ", end="")
    print(f"{statistics.median(processors):.3f}")
    return statistics.median(speeds), [f"ratio {middle:.3f}, wanted {_RATIO}"] if middle < _RATIO else []


def latency(on: Rig, run: Run, rate: float) -> None:
    """Prints percentiles of submission to decision, pictures arriving by chance `rate` times a second."""
    draw, batch = np.random.default_rng(run.seed), uuid4().hex
    with on.workers(), ThreadPoolExecutor(8) as pool:
        on.run(run.mix.take(24))
        begin, gaps = time.time() + 0.5, draw.exponential(1.0 / rate, run.sizes.latency).cumsum()
        planned = {}
        for gap, picture in zip(gaps, run.mix.take(run.sizes.latency), strict=True):
            time.sleep(max(0.0, begin + gap - time.time()))
            planned[pool.submit(on.submit, picture, batch)] = begin + gap
        accepted = {future.result().id: moment for future, moment in planned.items()}
        on.wait(batch, run.sizes.latency)
    asked = sa.select(decisions.c.case_id, decisions.c.at).join(cases, cases.c.id == decisions.c.case_id)
    with on.parts.database.reading() as connection:
        rows = connection.execute(asked.where(cases.c.tenant == TENANT, cases.c.batch == batch)).all()
    # From the moment that was planned: a submission that came late waited, too.
    waited = [from_microseconds(row.at).timestamp() - accepted[row.case_id] for row in rows]
    p50, p95, p99 = (1000.0 * float(value) for value in np.percentile(waited, [50, 95, 99]))
    print(f"latency    p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms at {rate:.1f} pictures/s ({len(waited)} pictures)")


def scale(on: Rig, run: Run) -> None:
    """Prints what a second `align` worker brings, where each picture waits 150 ms there."""
    blobs, speeds = pictures.Unseen([b"no picture"], run.seed), []
    for kinds in (SINGLE_WORKERS, (*SINGLE_WORKERS, "align+2")):
        one = dict.fromkeys(("align", "align+2"), 1)
        with on.workers(one, kinds=kinds, noop=True, env={"BENCH_WAIT_MS": "150"}):
            on.run(blobs.take(20))
            speeds.append(run.sizes.scale / on.run(blobs.take(run.sizes.scale))[1])
    print(f"scale      {speeds[1] / speeds[0]:.2f} times with 2 align workers ({speeds[0]:.1f} -> {speeds[1]:.1f} pictures/s)")


def stored(on: Rig, run: Run) -> None:
    """Prints the store's calls with many cases over few."""
    with store.filled(on, "few", 1_000) as few, store.filled(on, "many", run.sizes.many) as many:
        found = store.compared(store.calls(few), store.calls(many), 60 * run.sizes.rounds)
    for name, (small, large) in found.items():
        print(f"  {name:<16} {small:7.2f} ms -> {large:7.2f} ms: {large / small:.2f}")
    small, large = found["a case, 5 hops"]
    print(f"store      {large / small:.2f} times a case's 5 hops with {run.sizes.many} cases over 1000")


def _spent(on: Rig, pids: Mapping[str, int], work: Callable[[], float]) -> tuple[dict[str, float], float]:
    """Milliseconds of processor time of workers, servers and this process meanwhile, and seconds of the clock."""
    roots = {**pids, **on.servers()}
    before, own = spent_ms(roots), time.process_time()
    seconds = work()
    return difference(spent_ms(roots), before) | {"submit": 1000.0 * (time.process_time() - own)}, seconds


def _each(spent: Mapping[str, float], number: int) -> str:
    return ", ".join(f"{name} {value / number:.1f}" for name, value in spent.items())


def _profiled(on: Rig, run: Run, pids: Mapping[str, int], mix: pictures.Unseen, number: int) -> None:
    if not run.profile:
        return
    with watched(pids, _SPY_SECONDS) as found:
        on.run(mix.take(number))
    print(f"  Python's own time by what it does:\n{table(found)}")


PARTS: Final = ("cost", "ratio", "latency", "scale", "store")


def alike(broker: Broker, faces: Path, number: int) -> list[str]:
    """Prints how far the two ways of running agree; what is missed."""
    with rig(ROOT / "model_repository", broker, triton=True) as on, on.workers():
        found = parity.compare(on, parity.sample(faces, number))
    print(f"parity     {found}", *found.unlike, sep="\n  ")
    return [f"parity: {len(found.unlike)} unlike"] if found.unlike else []


def main() -> int:
    """Measures, prints, and exits 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--parity", type=int, nargs="?", const=0, metavar="N", help="so many pictures (default: all of `val`)")
    parser.add_argument(
        "--faces", type=Path, default=os.environ.get("UNMASK_FACES"), metavar="DIR", help="folder with manifest.csv"
    )
    parser.add_argument("--quick", action="store_true", help="one round of little")
    parser.add_argument("--broker", choices=("valkey", "rabbitmq"), default="valkey")
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="pictures to bring to 1024 px, instead of one face re-cropped"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-profile", dest="profile", action="store_false", help="do not sample where Python's time goes")
    args = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    command = shlex.join(["python", "-m", "bench.distributed", *sys.argv[1:]])
    print(f"{command}; seed {args.seed}, {cores()} processors")
    mix = pictures.made(24, args.seed) if args.pictures is None else pictures.read(args.pictures, 24, args.seed)
    run = Run(QUICK if args.quick else Sizes(), args.seed, pictures.Unseen(mix, args.seed), mix, args.profile)
    chosen = [part for part in PARTS if getattr(args, part)] or ([] if args.parity is not None else list(PARTS))
    missed = _measured(run, cast("Broker", args.broker), chosen)
    if args.parity is not None:
        if args.faces is None:
            parser.error("--parity needs --faces DIR")
        missed += alike(cast("Broker", args.broker), args.faces, args.parity)
    for what in missed:
        print(f"target missed: {what}", file=sys.stderr)
    return 1 if missed else 0


def _measured(run: Run, broker: Broker, chosen: list[str]) -> list[str]:
    missed: list[str] = []
    if {"cost", "scale", "store"} & {*chosen}:
        with rig(ROOT / "model_repository", broker, triton=False) as on:
            missed += cost(on, run) if "cost" in chosen else []
            if "scale" in chosen:
                scale(on, run)
            if "store" in chosen:
                stored(on, run)
    if {"ratio", "latency"} & {*chosen}:
        with rig(ROOT / "model_repository", broker, triton=True) as on:
            speed, short = ratio(on, run)
            missed += short
            if "latency" in chosen:
                latency(on, run, speed / 2.0)
    return missed


if __name__ == "__main__":
    sys.exit(main())
