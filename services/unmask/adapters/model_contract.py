"""What a model's card promises of its tensors, held against requests, graphs and answers: the same for every ModelServer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.core.cards import Card, ModelRef, TensorSpec
from unmask.core.errors import BadModel
from unmask.core.ports import Tensors


class Repository(Protocol):
    """Where cards and files come from (`ModelRepository`)."""

    def card(self, ref: ModelRef) -> Card:
        """The card of a version."""

    def file(self, ref: ModelRef, name: str = "model.onnx") -> bytes:
        """A file of a version, checked."""


def label(card: Card) -> str:
    """The version as errors name it."""
    return f"model {card.name}/{card.version}"


def check_inputs(card: Card, inputs: Tensors) -> None:
    """Raises `BadModel` naming model, tensor, expected and found where a request breaks the card's input contract."""
    name, spec = label(card), card.input
    if list(inputs) != [spec.name]:
        raise BadModel(f"{name}: expected the input {spec.name}, the request has {', '.join(inputs) or 'none'}")
    tensor = inputs[spec.name]
    if tensor.dtype.name != spec.dtype:
        raise BadModel(f"{name}: input {spec.name}: expected {spec.dtype}, the request has {tensor.dtype.name}")
    if not _fits(tensor.shape, spec.shape) or not all(tensor.shape):
        raise BadModel(f"{name}: input {spec.name}: expected shape {spec.shape}, the request has {tensor.shape}")


def chosen(card: Card, names: Sequence[str] | None) -> tuple[TensorSpec, ...]:
    """The outputs that a request names, all where it names none; raises `BadModel` for one that the card does not have."""
    if names is None:
        return card.outputs
    by_name = {spec.name: spec for spec in card.outputs}
    if not names:
        raise BadModel(f"{label(card)}: the request asks for no output; the card names {', '.join(sorted(by_name))}")
    for name in names:
        if name not in by_name:
            raise BadModel(f"{label(card)}: output {name}: the card names {', '.join(sorted(by_name))}")
    return tuple(by_name[name] for name in dict.fromkeys(names))


def check_outputs(card: Card, specs: Sequence[TensorSpec], rows: int, outputs: Tensors, said: str) -> None:
    """`check_inputs` for an answer of so many rows to a request for these outputs; `said` is who gave it."""
    name, expected = label(card), sorted(spec.name for spec in specs)
    if sorted(outputs) != expected:
        raise BadModel(f"{name}: outputs: expected {', '.join(expected)}; {said} gave {', '.join(sorted(outputs)) or 'none'}")
    for spec in specs:
        tensor = outputs[spec.name]
        if tensor.dtype.name != spec.dtype:
            raise BadModel(f"{name}: output {spec.name}: the card says {spec.dtype}, {said} gave {tensor.dtype.name}")
        shape = (rows, *spec.shape[1:])
        if not _fits(tensor.shape, shape):
            raise BadModel(f"{name}: output {spec.name}: the card says shape {shape}, {said} gave {tensor.shape}")


def check_declared(card: Card, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str) -> None:
    """Raises `BadModel` naming model, tensor, expected and found where what `where` declares is not what the card says."""
    _check_tensors(f"{label(card)}: input", [card.input], inputs, where)
    _check_tensors(f"{label(card)}: output", card.outputs, outputs, where)


def _check_tensors(what: str, specs: Sequence[TensorSpec], found: Sequence[TensorSpec], where: str) -> None:
    expected, present = sorted(spec.name for spec in specs), sorted(tensor.name for tensor in found)
    if expected != present:
        raise BadModel(f"{what}s: the card names {', '.join(expected)}; {where} has {', '.join(present)}")
    by_name: Mapping[str, TensorSpec] = {tensor.name: tensor for tensor in found}
    for spec in specs:
        tensor = by_name[spec.name]
        if tensor.dtype != spec.dtype:
            raise BadModel(f"{what} {spec.name}: the card says {spec.dtype}, {where} has {tensor.dtype}")
        # A length left open there may be fixed by the card; one that is fixed there must be the card's.
        if not _fits(spec.shape, tensor.shape):
            raise BadModel(f"{what} {spec.name}: the card says shape {spec.shape}, {where} has {tensor.shape}")


def _fits(shape: Sequence[int], pattern: Sequence[int]) -> bool:
    return len(shape) == len(pattern) and all(says in {-1, has} for has, says in zip(shape, pattern, strict=True))


def parts(tensor: NDArray[np.generic], limit: int) -> list[NDArray[np.generic]]:
    """The rows in order, at most `limit` a part."""
    return [tensor[start : start + limit] for start in range(0, len(tensor), limit)]


def joined(answers: Sequence[Tensors]) -> Tensors:
    """The parts' outputs put together again."""
    if len(answers) == 1:
        return answers[0]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
