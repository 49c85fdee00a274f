"""Lets a torchvision built for CUDA import beside a torch built for the processor.

torchvision registers fake kernels for `torchvision::nms` and `torchvision::qnms` on import; where its compiled operators
cannot be loaded these are not defined, and the import fails.  Defining their schemas first is enough for all that
training uses (models and transforms in pure Python).
"""

from __future__ import annotations

from typing import Final

import torch

_SCHEMAS: Final = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []


def install() -> None:
    """Defines the two schemas unless they are there; call before `import torchvision`.  Repeated calls do nothing."""
    if _libraries or hasattr(torch.ops.torchvision, "nms"):
        return
    # The definitions live as long as this object.
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)
