"""Logs as JSON: one object a line, with the case and the trace that it is about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from unmask.logs import set_up

CASE = "01a3c1de-7a5b-7c11-9d2e-0123456789ab"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_names_its_case(written: io.StringIO) -> None:
    set_up("json", written)
    logging.getLogger("unmask.x").warning("case %s: step %s left\nto the sweeper", CASE, "align")
    logging.getLogger("unmask.x").info("case 7: not one of ours")
    first, second = lines(written)
    assert (first["case"], first["level"], first["logger"]) == (CASE, "warning", "unmask.x")
    assert first["message"] == f"case {CASE}: step align left\nto the sweeper" and "case" not in second
    assert str(first["time"]).endswith("Z") and "trace" not in first


def test_an_exception_stays_one_line(written: io.StringIO) -> None:
    set_up("json", written)
    try:
        raise ValueError("späť\n☃")
    except ValueError:
        logging.getLogger("unmask.x").exception("broke")
    (line,) = lines(written)
    assert "ValueError: späť" in str(line["exception"])


def test_a_line_within_a_trace_says_which(written: io.StringIO) -> None:
    set_up("json", written)
    with TracerProvider().get_tracer("test").start_as_current_span("step") as span:
        logging.getLogger("unmask.x").info("inside")
    assert lines(written)[0]["trace"] == f"{span.get_span_context().trace_id:032x}"


def test_text_is_for_people(written: io.StringIO) -> None:
    set_up("text", written)
    logging.getLogger("unmask.x").info("hello")
    assert written.getvalue().endswith(" INFO unmask.x: hello\n")
