"""The library: `Unmask().check(picture)` in this process, without a server."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from unmask.bootstrap import Parts, forgetful, inline_world
from unmask.core.domain import BytesSource, FaceRow, Heat, State, Submission, Verdict
from unmask.core.errors import BadConfig, BadImage, StoreCorrupt, UnmaskError, from_code
from unmask.core.images import Pixels, make_chip
from unmask.core.pictures import ImageLimits, decode
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.localization.handler import localize_chips
from unmask.settings import Settings

Picture = bytes | str | os.PathLike[str]
TENANT: Final = "default"


@dataclass(frozen=True, slots=True)
class Checked:
    """One answer of `check_many`: the verdict, or the error that stands in its place."""

    source: Picture
    verdict: Verdict | None
    error: UnmaskError | None


class Unmask:
    """Judges pictures in this process; thread-safe, models loaded once.

    `models` is a model repository, `state` a folder that keeps cases and verdicts (without it nothing is kept), `policy`
    a YAML file, `threads` how many processors to use; what is not given comes from UNMASK_* (see `Settings`).
    Raises `BadModel`, `BadPolicy` or `BadConfig` when these cannot be used.
    """

    def __init__(
        self,
        *,
        models: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        policy: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> None:
        told = {"models": _path(models), "state": _path(state), "policy": _path(policy), "threads": threads}
        changes: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        settings = replace(Settings.from_environment(), **changes)
        if settings.models is not None and not os.path.isdir(settings.models):  # noqa: PTH112 - also where it may not be looked at
            raise BadConfig(f"{settings.models}: no model repository is there; name one by --models or UNMASK_MODELS")
        parts = Parts(settings)
        self._parts = parts
        self._world = inline_world(parts)
        self._keeps = settings.state is not None
        self._workers = parts.threads + 1
        self._limit = parts.limits.bytes

    def check(self, picture: Picture) -> Verdict:
        """The verdict of one picture, given as bytes or as a path.

        Raises `BadImage` when it is refused, `BadModel` or `Unavailable` when it could not be judged.
        """
        data = self.read(picture)
        verdict = _judged(self._world, data) if self._keeps else _forgotten(forgetful(self._world), data)
        return verdict if isinstance(picture, bytes) else replace(verdict, path=os.fspath(picture))

    @property
    def limits(self) -> ImageLimits:
        """What is refused before decoding."""
        return self._parts.limits

    @property
    def byte_limit(self) -> int:
        """The largest picture that is read, in bytes."""
        return self._limit

    @property
    def models_root(self) -> Path:
        """The model repository in use."""
        return self._parts.repository.root

    def faces(self, picture: Pixels) -> tuple[FaceRow, ...]:
        """Faces of decoded pixels, (H, W, 3) uint8 RGB, largest first, as the active release finds them."""
        return self._world.handlers.align(picture, self._world.catalogue.active_release())

    def heats(self, picture: Picture, verdict: Verdict) -> tuple[Heat | None, ...]:
        """How manipulated the cells of each of the verdict's faces look, by the active release; raises as `check` does."""
        pixels, release = decode(self.read(picture), self.limits), self._world.catalogue.active_release()
        boxes = [face.box for face in verdict.faces]
        chips = [make_chip(pixels, np.array(face.box), np.array(face.landmarks)) for face in verdict.faces]
        found = localize_chips(chips, boxes, release, self._parts.models, heat=True)
        return tuple(one.heat for one in found)

    def check_many(self, pictures: Iterable[Picture]) -> Iterator[Checked]:
        """One answer a picture, in order, while later ones are worked on; holds a few pictures at a time, never all."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="check") as pool:
            waiting: deque[Future[Checked]] = deque()
            try:
                for picture in pictures:
                    waiting.append(pool.submit(self._checked, picture))
                    if len(waiting) > 2 * self._workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _checked(self, picture: Picture) -> Checked:
        try:
            return Checked(picture, self.check(picture), None)
        except UnmaskError as error:
            # Its traceback's frames hold the picture's bytes, and whoever keeps the answer would keep them too.
            return Checked(picture, None, error.with_traceback(None))

    def read(self, picture: Picture) -> bytes:
        """The bytes of a picture; a file beyond the limit is not read.

        Raises `BadImage` for a longer file, for what is no regular file (a pipe, a device, a folder) or cannot be read.
        """
        if isinstance(picture, bytes):
            return picture
        path = picture
        try:
            if not Path(path).is_file():
                what = "is a folder" if Path(path).is_dir() else "is not a regular file" if Path(path).exists() else "not found"
                raise BadImage(what)
            with Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = b"" if size > self._limit else file.read(self._limit + 1)
        except OSError as error:
            raise BadImage(f"cannot be read: {error.strerror}") from error
        # A file may grow while it is read, and /proc says 0 of all of its own.
        if size > self._limit or len(data) > self._limit:
            raise BadImage(f"longer than the {self._limit} bytes that are read")
        return data

    def close(self) -> None:
        """Nothing runs between checks; here for symmetry with `with`."""

    def __enter__(self) -> Unmask:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _path(place: str | os.PathLike[str] | None) -> Path | None:
    return None if place is None else Path(place)


def _forgotten(world: World, data: bytes) -> Verdict:
    """As `_judged`, in a world that nobody needs afterwards.

    It and its queue hold each other until the garbage collector comes by; the picture must not wait for that.
    """
    try:
        return _judged(world, data)
    finally:
        for key in world.blobs.keys(""):
            world.blobs.delete(key)


def _judged(world: World, data: bytes) -> Verdict:
    """Submits, lets the inline queue run the case to its end, and reads what the store then says."""
    accepted = accept(world, Submission(TENANT, BytesSource(data)))
    case = world.store.case(TENANT, accepted.id)
    if case.failure is not None:
        raise from_code(case.failure.code, case.failure.detail)
    verdict = world.store.verdict_of(TENANT, case.id)
    if case.state is not State.DECIDED or verdict is None:
        raise StoreCorrupt(f"case {case.id} ended neither decided nor failed (state {case.state}, stage {case.stage})")
    return verdict
