"""Processor time out of /proc: of processes with all their children, also of those that have ended."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_TICK_MS: Final = 1000.0 / os.sysconf("SC_CLK_TCK")


def spent_ms(roots: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds of processor time that each process (by name -> pid) and all its descendants have used so far.

    Descendants are followed by their parents and not by groups: Postgres gives each backend a group of its own.
    """
    parents, own = _table()
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    return {name: _tree(pid, children, own) for name, pid in roots.items()}


def _tree(pid: int, children: Mapping[int, list[int]], own: Mapping[int, float]) -> float:
    return own.get(pid, 0.0) + sum(_tree(child, children, own) for child in children.get(pid, ()))


def _table() -> tuple[dict[int, int], dict[int, float]]:
    """Parent and milliseconds of every process; those of ended children count to whoever waited for them."""
    parents, own = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # After the name, which may hold anything: state, parent, …; 14 to 17 of the line are the four times.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(fields[1])
        own[int(folder.name)] = sum(map(int, fields[11:15])) * _TICK_MS
    return parents, own


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What was used in between, by name."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
