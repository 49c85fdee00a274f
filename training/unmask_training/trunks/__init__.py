"""The trunks that a detector can stand on: one small module each, behind one registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Final

from torch import Tensor

from unmask_training.trunks.base import Trunk

__all__ = ["SPECS", "Spec", "Trunk", "build", "load", "spec"]

_SCRATCH: Final = "none: from scratch"
_FILE: Final = "torchvision's file, --weights"
_PORT: Final = "file of the PyTorch port, --weights"
_WHOLE: Final = ("all", "frozen")
_STAGED: Final = ("all", "layer4", "frozen")


@dataclass(frozen=True, slots=True)
class Spec:
    """Where a trunk is made, who described it, how its first weights are had, and which of its parts may learn.

    `make` is `module:function` within this package; `weights` a name in weights.lock, a kind of file for --weights, or that
    there are none; the first of `trainable` is what the bare name means, the others are `name:option`.  Nothing is frozen
    that was not fitted before.
    """

    make: str
    source: str
    weights: str = _SCRATCH
    trainable: tuple[str, ...] = ("all",)

    @property
    def pretrained(self) -> bool:
        """Whether first weights exist."""
        return self.weights != _SCRATCH


SPECS: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        "mobilenet_v2": Spec("mobilenet_v2:mobilenet_v2", "Sandler et al., CVPR 2018", "mobilenet_v2", _WHOLE),
        "efficientnet_lite0": Spec(
            "efficientnet_lite:efficientnet_lite0", "Tan and Le, ICML 2019", "efficientnet_lite0", _WHOLE
        ),
        "resnet18": Spec("resnet:resnet18", "He et al., CVPR 2016", _FILE, _STAGED),
        "resnet50": Spec("resnet:resnet50", "He et al., CVPR 2016", _FILE, _STAGED),
        "resnext101": Spec("resnet:resnext101", "Xie et al., CVPR 2017", _FILE, ("layer4", "frozen", "all")),
        "swin_t": Spec("swin:swin_t", "Liu et al., ICCV 2021", _FILE, _WHOLE),
        "xception": Spec("xception:xception", "Chollet, CVPR 2017", _PORT, _WHOLE),
        "vit_tiny": Spec("vit:vit_tiny", "Dosovitskiy et al., ICLR 2021"),
        "mesoinception4": Spec("mesoinception:mesoinception4", "Afchar et al., WIFS 2018"),
        "mlp": Spec("plain:mlp", "baseline"),
        "cnn": Spec("plain:cnn", "baseline"),
        "patch_resnet18": Spec("resnet:patch_resnet18", "Chai et al., ECCV 2020", _FILE, _WHOLE),
        "patch_xception": Spec("xception:patch_xception", "Chai et al., ECCV 2020", _PORT, _WHOLE),
        "npr": Spec("npr:npr", "Tan et al., CVPR 2024"),
        "spectrum": Spec("spectrum:spectrum", "Durall et al., 2020"),
    }
)


def spec(name: str) -> tuple[Spec, str]:
    """Specification and option of `name` or `name:option`; raises `ValueError` naming what there is."""
    bare, _, option = name.partition(":")
    if bare not in SPECS:
        raise ValueError(f"trunk {name!r} is unknown; there are: {', '.join(sorted(SPECS))}")
    found = SPECS[bare]
    if option and option not in found.trainable:
        raise ValueError(f"trunk {bare}: no option {option!r}; there are: {', '.join(found.trainable)}")
    return found, option or found.trainable[0]


def build(name: str) -> Trunk:
    """A new trunk by `name` or `name:option`, its weights drawn at random; raises `ValueError` naming what there is."""
    found, option = spec(name)
    module, _, function = found.make.partition(":")
    trunk: Trunk = getattr(import_module(f"{__name__}.{module}"), function)()
    trunk.freeze(option)
    return trunk


def load(trunk: Trunk, state: Mapping[str, Tensor], where: str) -> None:
    """Puts a published state dict into a trunk, its classifier left out; raises `ValueError` naming what does not fit."""
    told = trunk.published(state)
    own = trunk.state_dict()
    lacking = [name for name in own if name not in told and not name.endswith("num_batches_tracked")]
    extra = [name for name in told if name not in own]
    shapes = [name for name in own if name in told and own[name].shape != told[name].shape]
    for what, names in (("lacks", lacking), ("also has", extra), ("has another shape of", shapes)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{where}: not the weights of this trunk: {what} {names[0]}{more}")
    trunk.load_state_dict(told, strict=False)
