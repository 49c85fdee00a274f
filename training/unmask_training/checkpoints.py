"""Checkpoints that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save(state: Mapping[str, Any], path: Path) -> None:
    """Writes it beside `path` and moves it there: a fit that is cut off while it writes keeps the one before."""
    aside = path.with_suffix(".writing")
    torch.save(state, aside)
    aside.replace(path)
