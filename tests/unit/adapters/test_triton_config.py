"""config.pbtxt from cards, word for word, and over versions that differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.adapters.small_models import CANVAS, SUMS, TOTAL, card_of
from unmask.adapters.triton_config import config_text
from unmask.core.cards import Card
from unmask.core.errors import BadModel

WHOLE = """\
# Written by `unmask models config` from the model's cards: change those.
name: "summing"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "image", data_type: TYPE_UINT8, dims: [ 4, 4, 3 ] }
]
output [
  { name: "sums", data_type: TYPE_FP32, dims: [ 3 ] },
  { name: "total", data_type: TYPE_FP32, dims: [ 1 ], reshape: { shape: [ ] } }
]
dynamic_batching { }
version_policy: { all { } }
"""


def card(version: int = 1, **changes: Any) -> Card:
    return Card.parse(json.dumps(card_of(b"", version=version, **changes)).encode(), "")


def test_the_whole_text() -> None:
    assert config_text([card()]) == WHOLE


def test_a_canvas_leaves_its_sides_open() -> None:
    assert "dims: [ -1, -1, 3 ]" in config_text([card(input=CANVAS)])


def test_versions_that_differ_leave_the_length_open_and_take_the_smallest_batch() -> None:
    text = config_text([card(), card(2, max_batch_size=4, outputs=[SUMS | {"shape": [-1, 5]}, TOTAL])])
    assert "max_batch_size: 4" in text
    assert 'name: "sums", data_type: TYPE_FP32, dims: [ -1 ]' in text
    assert "dims: [ 4, 4, 3 ]" in text


@pytest.mark.parametrize(
    "outputs",
    [
        [SUMS | {"name": "other"}, TOTAL],
        [SUMS | {"dtype": "float64"}, TOTAL],
        [SUMS | {"shape": [-1, 3, 3]}, TOTAL],
        [SUMS],
        [SUMS, TOTAL, TOTAL | {"name": "more"}],
    ],
)
def test_versions_of_another_kind_than_the_newest_are_left_out(outputs: list[dict[str, Any]]) -> None:
    old, new = card(), card(3, outputs=outputs)
    text = config_text([old, card(2, outputs=outputs), new])
    assert text.endswith("# Other versions have other tensors.\nversion_policy: { specific { versions: [ 2, 3 ] } }\n")
    whole = "version_policy: { all { } }\n"
    assert text.partition("# Other")[0] == config_text([new]).removesuffix(whole)
    assert config_text([old]).endswith(whole)


def test_the_leading_version_is_the_one_that_the_release_names() -> None:
    old, new = card(), card(2, outputs=[SUMS])
    served = "version_policy: {{ specific {{ versions: [ {} ] }} }}\n"
    for leading, version in ((1, 1), (2, 2), (None, 2), (7, 2)):
        assert config_text([old, new], leading).endswith(served.format(version))


def test_a_dtype_without_a_name_in_triton_is_refused() -> None:
    with pytest.raises(BadModel, match="Triton's name for complex64 is not known"):
        config_text([card(outputs=[SUMS | {"dtype": "complex64"}])])
