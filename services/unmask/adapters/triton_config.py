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


def config_text(cards: Sequence[Card]) -> str:
    """The config.pbtxt of a model from the cards of all its versions (at least one).

    Triton has one file for all versions: a length in which they differ is left open (-1), the batch is the smallest one's.
    Raises `BadModel` where versions differ in a tensor's name, dtype or rank.
    """
    first, *others = cards
    for other in others:
        _check_alike(first, other)
    inputs = _merged([(card.input,) for card in cards])
    outputs = _merged([card.outputs for card in cards])
    lines = [
        "# Written by `unmask models config` from the model's cards: change those.",
        f'name: "{first.name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {min(card.max_batch_size for card in cards)}",
        *_tensors("input", inputs),
        *_tensors("output", outputs),
        # No delay: what arrives while a batch runs makes the next one.
        "dynamic_batching { }",
        # Callers name a version, so all stay loaded.
        "version_policy: { all { } }",
    ]
    return "\n".join(lines) + "\n"


def _check_alike(first: Card, other: Card) -> None:
    for one, two in zip((first.input, *first.outputs), (other.input, *other.outputs), strict=False):
        if (one.name, one.dtype, len(one.shape)) != (two.name, two.dtype, len(two.shape)):
            raise BadModel(
                f"model {first.name}: version {first.version} has {one.name} {one.dtype} {one.shape}, version {other.version} "
                f"{two.name} {two.dtype} {two.shape}: versions that differ in name, dtype or rank need a model of their own"
            )
    if len(first.outputs) != len(other.outputs):
        raise BadModel(f"model {first.name}: versions {first.version} and {other.version} differ in how many outputs they have")


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
