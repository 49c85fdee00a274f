"""The tower as a torch module, through which a gradient runs: its products as the wheel has them, its norms to be tuned."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from unmask.core.vit_trunk import LEVELS, PATCH, WIDTH, tower
from unmask_training.tower.parts import Floats

BLOCKS: Final = 12
_HEADS: Final = 12
_STREAM: Final = "vision_model.encoder.layers"
_PRODUCTS: Final = ("self_attn/q_proj", "self_attn/k_proj", "self_attn/v_proj", "self_attn/out_proj", "mlp/fc1", "mlp/fc2")


class Block(nn.Module):
    """One pre-norm transformer block of CLIP's (quick GELU)."""

    def __init__(self, held: dict[str, Tensor], number: int) -> None:
        super().__init__()
        name = f"{_STREAM}.{number}"
        self.norms = nn.ModuleList(_norm(held, f"{name}.layer_norm{i}") for i in (1, 2))
        q, k, v, out, up, down = (_linear(held, number, product) for product in _PRODUCTS)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.qkv.weight = nn.Parameter(torch.cat([q.weight, k.weight, v.weight]), requires_grad=False)
        self.qkv.bias = nn.Parameter(torch.cat([q.bias, k.bias, v.bias]), requires_grad=False)
        self.out, self.up, self.down = out, up, down

    def forward(self, stream: Tensor) -> Tensor:
        """(N, T, 768) to the same."""
        n, t, _ = stream.shape
        q, k, v = self.qkv(self.norms[0](stream)).view(n, t, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, WIDTH)
        stream = stream + self.out(mixed)
        hidden = self.up(self.norms[1](stream))
        return stream + self.down(hidden * torch.sigmoid(1.702 * hidden))


class VisionTower(nn.Module):
    """CLIP's image tower (Radford et al., ICML 2021) as `unmask.core.vit_trunk.tower` without ranges computes it.

    Only the layer norms are trainable: 38 400 numbers that leave the tower's products, and so their integer weights, as
    they are (LN-tuning: Kim et al., 2021; for faces Yermakov et al., 2025).
    """

    def __init__(self, raw: bytes, positions: Floats) -> None:
        super().__init__()
        graph = onnx.load_model_from_string(tower(raw, positions)).graph
        held = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.patches.weight = nn.Parameter(held["vision_model.embeddings.patch_embedding.weight"], requires_grad=False)
        self.register_buffer("token", held["vision_model.embeddings.class_embedding"])
        self.register_buffer("positions", torch.from_numpy(np.ascontiguousarray(positions)))
        self.before = _norm(held, "vision_model.pre_layrnorm")
        self.blocks = nn.ModuleList(Block(held, number) for number in range(BLOCKS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (N, 5376) of normalised (N, 3, S, S)."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        stream = torch.cat([self.token.to(patches.dtype).expand(len(patches), 1, -1), patches], dim=1)
        stream, read = self.before(stream + self.positions), dict(LEVELS)
        levels = []
        for number, block in enumerate(self.blocks):
            stream = block(stream)
            if number in read:
                levels.append(stream.float()[:, 0] if read[number] == "class" else stream.float().mean(1))
        return torch.cat(levels, dim=1)

    def set_norms(self, norms: Tensor) -> None:
        """Puts others in the place of its own, all one after the other: (38400,)."""
        with torch.no_grad():
            for values, new in zip(self.norms(), norms.view(-1, WIDTH), strict=True):
                values.copy_(new)

    def norms(self) -> list[nn.Parameter]:
        """What may be tuned, in the order of `unmask.core.vit_trunk.norms_of`."""
        found = [self.before, *(norm for block in self.blocks for norm in block.norms)]
        return [values for norm in found for values in (norm.weight, norm.bias)]


def _norm(held: dict[str, Tensor], name: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(WIDTH)
    norm.weight, norm.bias = nn.Parameter(held[f"{name}.weight"]), nn.Parameter(held[f"{name}.bias"])
    return norm


def _linear(held: dict[str, Tensor], number: int, product: str) -> nn.Linear:
    weight = held[f"/vision_model/encoder/layers.{number}/{product}/MatMul_output_0/weight"]
    linear = nn.Linear(*weight.shape)
    linear.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
    linear.bias = nn.Parameter(held[f"{_STREAM}.{number}.{product.replace('/', '.')}.bias"], requires_grad=False)
    return linear
