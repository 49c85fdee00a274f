"""Localizers by the name of their recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Final

from unmask_training.localizer.base import Localizer
from unmask_training.localizer.unet import UNet
from unmask_training.localizer.yolo import VARIANTS, Yolo

NETWORKS: Final[MappingProxyType[str, Callable[[], Localizer]]] = MappingProxyType(
    {"unet": UNet, **{name: partial(Yolo, name) for name in VARIANTS}}
)
