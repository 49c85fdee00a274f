"""Typed look-ups in parsed JSON, for the documents that say which models run and how their outputs are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from unmask.core.errors import BadModel


class Reader:
    """An object of a document; errors name the document and the field."""

    def __init__(self, where: str, data: object) -> None:
        if not isinstance(data, Mapping):
            raise BadModel(f"{where}: expected a JSON object")
        self.where, self.data = where, data

    @staticmethod
    def of_text(text: bytes, where: str) -> Reader:
        """The document's own object; raises `BadModel` when the text is no JSON object."""
        try:
            return Reader(where, json.loads(text))
        except ValueError as error:
            raise BadModel(f"{where}: not JSON ({error})") from error

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value of `key`; raises `BadModel` when it is missing or of another kind."""
        value = self.data.get(key)
        # A bool is an int to Python, never to a card.
        if isinstance(value, bool) or not isinstance(value, kind):
            raise BadModel(f"{self.where}: field '{key}' is missing or not of the right kind")
        return value

    def number(self, key: str) -> float:
        """The finite number at `key`."""
        return self._finite(key, self.get(key, (int, float)))

    def numbers(self, key: str) -> tuple[float, ...]:
        """The list of finite numbers at `key`."""
        values = self.get(key, list)
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise BadModel(f"{self.where}: field '{key}' is not a list of numbers")
        return tuple(self._finite(key, value) for value in values)

    def positive(self, key: str) -> int:
        """The whole number of at least 1 at `key`."""
        value = self.get(key, int)
        if value < 1:
            raise BadModel(f"{self.where}: field '{key}' must be at least 1")
        return int(value)

    def sub(self, key: str) -> Reader:
        """A reader for the object at `key`."""
        return Reader(f"{self.where}: {key}", self.get(key, Mapping))

    def maybe(self, key: str) -> Reader | None:
        """The same where there is one; a key that is missing or null is unset."""
        return None if self.data.get(key) is None else self.sub(key)

    def _finite(self, key: str, value: float) -> float:
        try:
            number = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            number = math.inf
        if not math.isfinite(number):
            raise BadModel(f"{self.where}: field '{key}' is not a finite number")
        return number
