"""Pictures per second of `Unmask().check_many`, over the bound: decoding and the models' own time, each run alone.

One round is: the whole way end to end; then only decoding every picture, on as many threads; then only the batches that the
models were given in that very round, on the same sessions.  Rounds are interleaved, so that a machine that slows down slows
both sides.  ratio = (decoding + models) / end to end; what is missing to 1 is everything else.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from unmask import Unmask
from unmask.adapters import models_local
from unmask.bootstrap import cores
from unmask.core.pictures import ImageLimits, decode
from unmask.core.ports import Tensors

TARGETS = {"ratio": 0.80, "cold_seconds": 3.0, "rss_mb": 500.0}
Kind = Literal["wall", "processor"]
Cost = dict[Kind, float]
Batch = tuple[models_local._Loaded, Tensors]

_CHILD = """
import sys
from unmask import Unmask
with Unmask() as unmask:
    for checked in unmask.check_many(sys.argv[1:]):
        if checked.error is not None:
            raise checked.error
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@dataclass
class Rounds:
    """Wall and processor seconds of every round."""

    whole: list[Cost] = field(default_factory=list)
    decoding: list[Cost] = field(default_factory=list)
    models: list[Cost] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def bound(self, kind: Kind) -> list[float]:
        """Decoding and the models, each alone, a round each."""
        return [one[kind] + two[kind] for one, two in zip(self.decoding, self.models, strict=True)]

    def ratios(self, kind: Kind) -> list[float]:
        """Bound over end to end, a round each."""
        return [bound / whole[kind] for bound, whole in zip(self.bound(kind), self.whole, strict=True)]


def made_pictures(count: int) -> list[bytes]:
    """JPEGs of 480 to 1600 px with one face each: crops of scikit-image's astronaut (NASA, public domain), re-sampled."""
    import skimage.data

    draw, pictures = np.random.default_rng(1), []
    photograph = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    for _ in range(count):
        left, top = draw.integers(0, 60, 2)
        right, bottom = draw.integers(400, 512, 2)
        side = int(draw.integers(480, 1600))
        picture = photograph.crop((left, top, right, bottom)).resize((side, side * (bottom - top) // (right - left)))
        file = BytesIO()
        picture.save(file, "JPEG", quality=int(draw.integers(70, 96)))
        pictures.append(file.getvalue())
    return pictures


def unseen(picture: bytes, number: int) -> bytes:
    """The same JPEG under other bytes (a comment segment), so that no cache of an earlier round answers."""
    comment = f"round {number}".encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


class Recorder:
    """Notes every batch that a session runs; put in place before any model is loaded."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._real = models_local._Loaded._run

    def __enter__(self) -> Recorder:
        def run(loaded: models_local._Loaded, inputs: Tensors) -> Tensors:
            self.batches.append((loaded, inputs))
            return self._real(loaded, inputs)

        models_local._Loaded._run = run  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        models_local._Loaded._run = self._real  # type: ignore[method-assign]

    def replay(self) -> None:
        """Runs what was noted once more, one batch after the other."""
        for loaded, inputs in self.batches:
            self._real(loaded, inputs)


def cost(work: Callable[..., object], *args: object) -> Cost:
    """Wall time of one call, and the processor time of all threads meanwhile (which other load on the machine hardly moves)."""
    wall, processor = time.perf_counter(), time.process_time()
    work(*args)
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def check_all(unmask: Unmask, pictures: list[bytes]) -> None:
    """End to end; a picture that is refused or not judged ends the measurement."""
    for checked in unmask.check_many(pictures):
        if checked.error is not None:
            raise checked.error


def measure(pictures: list[bytes], rounds: int, threads: int) -> Rounds:
    """One warm round that is not counted, then `rounds` interleaved ones."""
    measured, limits = Rounds(), ImageLimits()
    with Recorder() as recorder, Unmask(threads=threads) as unmask, ThreadPoolExecutor(threads) as pool:
        check_all(unmask, [unseen(picture, 0) for picture in pictures])
        for number in range(1, rounds + 1):
            recorder.batches.clear()
            measured.whole.append(cost(check_all, unmask, [unseen(picture, number) for picture in pictures]))
            measured.decoding.append(cost(lambda: list(pool.map(decode, pictures, repeat(limits)))))
            measured.models.append(cost(recorder.replay))
            measured.batches.append(len(recorder.batches))
    return measured


def fresh_process(pictures: list[Path]) -> tuple[float, float]:
    """Wall seconds and peak resident MB of a new Python that checks these pictures."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _CHILD, *map(str, pictures)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: the fresh process failed: {done.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - start, int(done.stdout) / 1024.0


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def report(measured: Rounds, count: int, cold: list[float], rss: float) -> dict[str, float]:
    """Prints the table; returns the figures that have targets."""
    ratios = measured.ratios("wall")
    print(f"pictures a round            {count}, {len(ratios)} rounds, {spread(measured.batches, 0)} batches a round")
    print(f"end to end                  {spread([count / one['wall'] for one in measured.whole])} pictures/s")
    print(f"bound                       {spread([count / wall for wall in measured.bound('wall')])} pictures/s")
    print(f"  decoding alone            {spread([1000 * one['wall'] / count for one in measured.decoding])} ms a picture")
    print(f"  models alone              {spread([1000 * one['wall'] / count for one in measured.models])} ms a picture")
    print(f"ratio                       {spread(ratios, 3)}")
    print(f"ratio of processor time     {spread(measured.ratios('processor'), 3)}")
    print(f"cold start, one picture     {spread(cold)} s")
    print(f"peak memory, {count} pictures    {rss:.0f} MB")
    return {"ratio": statistics.median(ratios), "cold_seconds": statistics.median(cold), "rss_mb": rss}


def profile(pictures: list[bytes]) -> None:
    """Where one thread's time goes: own time by function."""
    unmask = Unmask(threads=1)
    unmask.check(pictures[0])
    profiler = cProfile.Profile()
    profiler.enable()
    for picture in pictures:
        unmask.check(unseen(picture, 1))
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> int:
    """Measures, prints, and exits 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="JPEGs to use instead of those made on the spot")
    parser.add_argument("--count", type=int, default=48, help="how many pictures a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's seconds too")
    parser.add_argument("--profile", action="store_true", help="print where one thread's time goes instead")
    args = parser.parse_args()
    pictures = made_pictures(args.count) if args.pictures is None else _read(args.pictures, args.count)
    if args.profile:
        profile(pictures)
        return 0
    with tempfile.TemporaryDirectory(prefix="unmask-bench-") as folder:
        files = [Path(folder) / f"{i}.jpg" for i in range(len(pictures))]
        for file, data in zip(files, pictures, strict=True):
            file.write_bytes(data)
        cold = [fresh_process(files[:1])[0] for _ in range(5)]
        _, rss = fresh_process(files)
    measured = measure(pictures, args.rounds, args.threads)
    figures = report(measured, len(pictures), cold, rss)
    if args.json is not None:
        args.json.write_text(json.dumps(figures | vars(measured), indent=2) + "\n", encoding="utf-8")
    missed = [name for name, value in figures.items() if (value < TARGETS[name]) == (name == "ratio")]
    for name in missed:
        print(f"target missed: {name} {figures[name]:.2f}, wanted {TARGETS[name]}", file=sys.stderr)
    return 1 if missed else 0


def _read(folder: Path, count: int) -> list[bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})[:count]
    if not paths:
        raise SystemExit(f"bench: {folder} holds no JPEG")
    return [path.read_bytes() for path in paths]


if __name__ == "__main__":
    sys.exit(main())
