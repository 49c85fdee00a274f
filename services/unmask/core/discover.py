"""How a new generator is noticed: faces that no known family explains, near-duplicates dropped, clustered by embedding."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.domain import FaceVerdict, Label, Verdict
from unmask.core.errors import BadModel
from unmask.core.near import MATCH
from unmask.core.readouts import UNKNOWN

Embeddings = NDArray[np.float32]
MEMORY: Final = "memory.safetensors"
# Average cosine distance at which groups are no longer one, unless the detector's card says another (`cluster_distance`).
# Measured with detector 1, the centre that of other faces, on 25 faces of MobileStyleGAN (which it was never shown) among 100
# held-out photographs that it takes for fakes most readily, five draws: at .3, .4, .5 and .6 the cluster that has most of the
# generator has 59, 72, 78 and 78 % of it, and consists of it by 94, 87, 85 and 85 %.  (DBSCAN, tried on embeddings as they
# are, chained photographs and fakes into one group.)
DISTANCE: Final = 0.4
LEAST: Final = 5
# 64 hex digits: the perceptual hash as words of 64 bits.
_WORDS: Final = 4
# A header of safetensors is at most so long, by its format.
_HEADER: Final = 100_000_000


def strange_face(verdict: Verdict, min_face: float) -> FaceVerdict | None:
    """The face of a verdict that wants explaining, or None: the one with the highest score where there are several.

    It is `unsure`, or it is called synthetic or manipulated and its likeliest family is `unknown`.  (Of a face called
    real the families say nothing: they are shares of what it would be if it were generated.)  Faces below `min_face`
    pixels are unsure by rule, and no news.  One face a picture, so that a group photograph is not a cluster of its own.
    """
    strange = [face for face in verdict.faces if _side(face) >= min_face and _is_strange(face)]
    return max(strange, key=lambda face: face.score or 0.0, default=None)


def _side(face: FaceVerdict) -> float:
    return max(face.box[2] - face.box[0], face.box[3] - face.box[1])


def _is_strange(face: FaceVerdict) -> bool:
    if face.label is Label.UNSURE:
        return True
    shares = face.generator or {}
    return face.label is not Label.REAL and bool(shares) and max(shares, key=lambda name: shares[name]) == UNKNOWN


@dataclass(slots=True)
class Originals:
    """Pictures that are no near-duplicates of one another, by sha256 and perceptual hash, in the order in which they came."""

    _by_sha256: dict[str, int] = field(default_factory=dict)
    _hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((16, _WORDS), np.uint64))
    _numbers: list[int] = field(default_factory=list)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def find(self, sha256: str, phash: str) -> int | None:
        """The number of the original that this picture equals or nearly equals; an empty hash is near to nothing."""
        if sha256 in self._by_sha256 or not phash or not self._numbers:
            return self._by_sha256.get(sha256)
        apart = np.bitwise_count(self._hashes[: len(self._numbers)] ^ _words(phash)).sum(axis=1)
        nearest = int(np.argmin(apart))
        return self._numbers[nearest] if apart[nearest] <= MATCH else None

    def add(self, sha256: str, phash: str) -> int:
        """Keeps a picture as an original; returns its number."""
        number, self._count = self._count, self._count + 1
        self._by_sha256[sha256] = number
        if phash:
            if len(self._numbers) == len(self._hashes):
                self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._hashes[len(self._numbers)] = _words(phash)
            self._numbers.append(number)
        return number


def _words(phash: str) -> NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex(phash), dtype=">u8").astype(np.uint64)


def centre_of_memory(data: bytes, where: str, width: int) -> Embeddings:
    """The middle of all that a detector knows, (C,): the mean over the kinds of its replay memory of each one's mean embedding.

    `data` is a version's memory.safetensors: `plain` (N, C') float16, of which the first `width` channels are the embedding
    before it is brought to length 1, `kind` (N,) int16.  Raises `BadModel` naming the file where it is something else.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        if not 0 < size <= min(_HEADER, len(data) - 8):
            raise ValueError("no header")
        header = json.loads(data[8 : 8 + size])
        features = _tensor(data, 8 + size, header["plain"], "F16", np.dtype("<f2"))
        kinds = _tensor(data, 8 + size, header["kind"], "I16", np.dtype("<i2"))
        if features.ndim != 2 or kinds.shape != features.shape[:1] or not kinds.size:
            raise ValueError("features and kind do not fit together")
        if features.shape[1] < width:
            raise ValueError(f"features of {features.shape[1]} channels, embeddings of {width}")
    except (ValueError, KeyError, TypeError) as error:
        raise BadModel(f"{where}: not a detector's replay memory ({error})") from error
    plain = unit(features[:, :width].astype(np.float32))
    middle: Embeddings = np.stack([plain[kinds == kind].mean(axis=0) for kind in np.unique(kinds)]).mean(axis=0)
    return middle


def _tensor(data: bytes, start: int, entry: dict[str, object], kind: str, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """One tensor of a safetensors file (huggingface.co/docs/safetensors: header of offsets into what follows it)."""
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] != kind or not isinstance(shape, list) or not isinstance(offsets, list):
        raise ValueError(f"a tensor is not {kind}")
    begin, end = (start + int(offset) for offset in offsets)
    return np.frombuffer(data[begin:end], dtype=dtype).reshape(shape)


def unit(rows: Embeddings) -> Embeddings:
    """Rows (N, C) of length 1; a row of zeros stays what it is."""
    scaled: Embeddings = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    return scaled


def find_clusters(
    embeddings: Embeddings, *, least: int = LEAST, distance: float = DISTANCE, centre: Embeddings | None = None
) -> list[list[int]]:
    """Groups of rows of (N, C) embeddings, largest first, the most typical member of each first; the rest is noise.

    Average linkage on the cosine distance of embeddings less `centre` (what all faces have in common says nothing; without
    one it is the mean of these very rows, which is weak where most of them are alike).  A group is cut where its halves
    are further apart than `distance` (0 to 2) on average, and is none with fewer than `least` members.
    """
    if len(embeddings) < least:
        return []
    middle = embeddings.mean(axis=0) if centre is None else centre
    rows = unit((embeddings - middle).astype(np.float32))
    labels = average_link(1.0 - rows @ rows.T, distance)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    kept = sorted((group for group in groups if len(group) >= least), key=lambda group: (-len(group), int(group[0])))
    return [_by_typicality(rows, group) for group in kept]


def _by_typicality(rows: Embeddings, group: NDArray[np.intp]) -> list[int]:
    nearness = rows[group] @ rows[group].mean(axis=0)
    return [int(member) for member in group[np.argsort(-nearness, kind="stable")]]


def largest(clusters: Sequence[Sequence[int]]) -> int:
    """Size of the largest cluster, 0 where there is none: what an alert on new generators looks at."""
    return max((len(cluster) for cluster in clusters), default=0)


def average_link(distances: Embeddings, cut: float) -> NDArray[np.intp]:
    """Labels (N,) of the groups that average linkage has joined at heights up to `cut`; `distances` (N, N) symmetric.

    By chains of nearest neighbours, in O(N^2) time: Murtagh, "A survey of recent advances in hierarchical clustering
    algorithms", 1983; heights of average linkage never fall, so a cut is the joins below it, in whatever order they come.
    """
    apart = np.array(distances, dtype=np.float32)
    np.fill_diagonal(apart, np.inf)
    size, parent = np.ones(len(apart)), np.arange(len(apart))
    alive = np.ones(len(apart), dtype=bool)
    chain: list[int] = []
    for _ in range(len(apart) - 1):
        if not chain:
            chain.append(int(np.flatnonzero(alive)[0]))
        one, other, height = _reciprocal(apart, chain)
        if height <= cut:
            parent[_root(parent, other)] = _root(parent, one)
        joined = (size[one] * apart[one] + size[other] * apart[other]) / (size[one] + size[other])
        apart[one] = apart[:, one] = joined
        apart[one, one] = math.inf
        apart[other] = apart[:, other] = np.inf
        size[one] += size[other]
        alive[other] = False
    return np.array([_root(parent, index) for index in range(len(parent))], dtype=np.intp)


def _reciprocal(apart: Embeddings, chain: list[int]) -> tuple[int, int, float]:
    """Follows nearest neighbours from the chain's end until two are each other's; takes them off it."""
    while True:
        last = chain[-1]
        before = chain[-2] if len(chain) > 1 else None
        nearest = int(np.argmin(apart[last]))
        # Of equals the one that we came from, or the chain might go round.
        if before is not None and apart[last, before] <= apart[last, nearest]:
            del chain[-2:]
            return min(before, last), max(before, last), float(apart[last, before])
        chain.append(nearest)


def _root(parent: NDArray[np.intp], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index
