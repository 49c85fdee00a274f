"""FaceForensics++: frames of original and manipulated videos, with groups that keep a video and its forgeries together."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Final

from unmask_training.data.corpora_tree import Corpus, Found, Tree, joined

_ORIGINAL: Final = "original_sequences"
_MANIPULATED: Final = "manipulated_sequences"
_ACTORS: Final = frozenset({"actors", "deepfakedetection"})
_PAIR: Final = re.compile(r"\d+_\d+|\d+")
_SPLIT_FILES: Final = {"train": "train.json", "val": "val.json", "test": "test.json"}


def is_faceforensics(tree: Tree) -> bool:
    """Whether original_sequences or manipulated_sequences lies at the top."""
    return any((tree.root / name).is_dir() for name in (_ORIGINAL, _MANIPULATED))


def read_faceforensics(tree: Tree) -> Corpus:
    """original_sequences/{youtube,actors}/c23/frames/ID/*.png, manipulated_sequences/METHOD/c23/frames/AAA_BBB/*.png.

    Of any compression; `images` or `faces` may stand for `frames`; masks and videos are passed over.  AAA_BBB is video
    AAA with the face or expression of BBB: both are of one group, as is all that is linked through them (of the actors
    nearly all).
    The official lists train.json, val.json and test.json, at the top or in `splits`, give the split where they are there.
    Source: dataset/README.md of ondyari/FaceForensics (Rossler et al., ICCV 2019; the actors: Dufour et al., 2019).
    """
    if tree.videos and not tree.pictures:
        raise ValueError(
            f"{tree.root}: {tree.videos} videos and no frames; write their frames as pictures first (frames/ID/*.png)"
        )
    splits = _official_splits(tree.root)
    read = [(path, _place(path)) for path in tree.pictures]
    names = joined(videos for _, place in read if place is not None for videos in [place[2]])
    found: list[Found] = []
    left_out = [(path, "not a frame of original_sequences or manipulated_sequences") for path, place in read if place is None]
    for path, place in read:
        if place is not None:
            method, compression, videos = place
            split = next((splits[video] for video in videos if video in splits), "")
            real = path.startswith(f"{_ORIGINAL}/")
            source = f"ff_{method.casefold()}" if real else "faceforensics"
            extra = {"compression": compression, "video": _video(path)}
            group = f"ff:{names[videos[0]]}"
            label, generator = ("real", "") if real else ("manipulated", method)
            found.append(Found(path, label, generator, source, group, split, extra=extra))
    return Corpus(found, left_out)


def _place(path: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Method or kind of original, compression, and the videos that a frame was made of; None where it is no frame."""
    parts = PurePosixPath(path).parts
    if parts[0] not in {_ORIGINAL, _MANIPULATED} or len(parts) < 5:
        return None
    prefix = "actors" if parts[1].casefold() in _ACTORS else "youtube"
    pair = _PAIR.match(_video(path))
    videos = pair.group().split("_") if pair else [_video(path)]
    return parts[1], parts[2], tuple(f"{prefix}:{video}" for video in videos)


def _video(path: str) -> str:
    """The video's name: the folder below `frames`, or the frame's own where frames lie there directly."""
    parts = PurePosixPath(path).parts
    return parts[4] if len(parts) > 5 else PurePosixPath(path).stem


def _official_splits(root: Path) -> dict[str, str]:
    """Split by video, from the official lists of pairs; empty where they are not there."""
    splits: dict[str, str] = {}
    for split, name in _SPLIT_FILES.items():
        path = next((file for folder in (root, root / "splits") if (file := folder / name).is_file()), None)
        if path is None:
            continue
        try:
            pairs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        if not isinstance(pairs, list) or not all(isinstance(pair, list) for pair in pairs):
            raise ValueError(f"{path}: expected a list of pairs of videos")
        splits |= {f"youtube:{video}": split for pair in pairs for video in pair}
    return splits
