"""Triton's config.pbtxt from model cards: generated text, one file a model, for every version of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unmask.core.cards import Card, TensorSpec
from unmask.core.errors import BadModel

_TYPES: Final = {
    "uint8": "TYPE_UINT8",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


def config_text(cards: Sequence[Card], leading: int | None = None) -> str:
    """The config.pbtxt of a model from the cards of all its versions (at least one).

    Triton has one file for all versions: a length in which they differ is left open (-1), the batch is the smallest one's.
    Versions whose tensors differ in name, dtype, rank or number from those of the version `leading` (the newest one if that
    is not among them) cannot share it: Triton is told to serve the others only, and whoever asks it for one of those is
    refused by name.
    """
    first = max(cards, key=lambda card: (card.version == leading, card.version))
    served = [card for card in cards if _kinds(card) == _kinds(first)]
    inputs = _merged([(card.input,) for card in served])
    outputs = _merged([card.outputs for card in served])
    lines = [
        "# Written by `unmask models config` from the model's cards: change those.",
        f'name: "{first.name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {min(card.max_batch_size for card in served)}",
        *_tensors("input", inputs),
        *_tensors("output", outputs),
        # No delay: what arrives while a batch runs makes the next one.
        "dynamic_batching { }",
        *_policy([card.version for card in served], len(cards) - len(served)),
    ]
    return "\n".join(lines) + "\n"


def _kinds(card: Card) -> list[tuple[str, str, int]]:
    """What versions have in common that share a configuration."""
    return [(spec.name, spec.dtype, len(spec.shape)) for spec in (card.input, *card.outputs)]


def _policy(versions: Sequence[int], others: int) -> list[str]:
    # Callers name a version, so all that can be are loaded.
    if not others:
        return ["version_policy: { all { } }"]
    numbers = ", ".join(str(version) for version in sorted(versions))
    return ["# Other versions have other tensors.", f"version_policy: {{ specific {{ versions: [ {numbers} ] }} }}"]


def _merged(versions: Sequence[Sequence[TensorSpec]]) -> list[TensorSpec]:
    merged = []
    for specs in zip(*versions, strict=True):
        sizes = zip(*(spec.shape for spec in specs), strict=True)
        shape = tuple(size[0] if len(set(size)) == 1 else -1 for size in sizes)
        merged.append(TensorSpec(specs[0].name, specs[0].dtype, shape))
    return merged


def _tensors(kind: str, specs: Sequence[TensorSpec]) -> list[str]:
    entries = [_tensor(spec) for spec in specs]
    return [f"{kind} [", ",\n".join(entries), "]"]


def _tensor(spec: TensorSpec) -> str:
    """One tensor without its batch axis; Triton has no tensor of rank 0, so a number a row is [1] outside, reshaped inside."""
    if spec.dtype not in _TYPES:
        raise BadModel(f"tensor {spec.name}: Triton's name for {spec.dtype} is not known")
    dims = ", ".join(str(size) for size in spec.shape[1:]) or "1"
    reshape = "" if len(spec.shape) > 1 else ", reshape: { shape: [ ] }"
    return f'  {{ name: "{spec.name}", data_type: {_TYPES[spec.dtype]}, dims: [ {dims} ]{reshape} }}'
