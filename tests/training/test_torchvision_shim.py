"""torchvision imports beside a torch built for the processor, in a fresh process as training starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from unmask_training import torchvision_shim
torchvision_shim.install()
torchvision_shim.install()
import torch, torchvision
torchvision_shim.install()
from torchvision.models import mobilenet_v2
print(tuple(mobilenet_v2(weights=None).eval()(torch.zeros(1, 3, 64, 64)).shape), hasattr(torch.ops.torchvision, "nms"))
"""


def test_torchvision_imports_and_runs(root: Path) -> None:
    paths = f"import sys; sys.path[:0] = [{str(root / 'services')!r}, {str(root / 'training')!r}]\n"
    command = [sys.executable, "-W", "ignore", "-c", paths + PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "(1, 1000) True", done.stderr
