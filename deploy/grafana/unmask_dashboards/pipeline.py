"""The dashboard Pipeline: how many pictures go through, how long they take, where they wait."""

from __future__ import annotations

from unmask.core import metrics as m
from unmask_dashboards.panels import Dashboard, Query, Row, Steps, lines, stack, stat
from unmask_dashboards.queries import growth, latest, quantile, quantiles, rate, share

_LIVE = 'lane="live"'
_DEAD = growth(m.CASE_SECONDS, where='state="dead"')

_GLANCE = Row(
    "At a glance",
    (
        stat("Cases a second", "Cases that end, with a verdict or a named failure.", rate(m.CASE_SECONDS), unit="ops"),
        stat(
            "Live cases on time",
            "Share of the live cases of the last hour that ended within a minute and did not die. The goal is 99 %.",
            "1 - unmask:live_cases_late:ratio_rate1h",
            unit="percentunit",
            steps=Steps(orange=0.99, red=0.95, falling=True),
        ),
        stat(
            "Live case, p95",
            "Seconds from acceptance to the end that one live case in twenty exceeds.",
            quantile(0.95, m.CASE_SECONDS, where=_LIVE),
            unit="s",
            steps=Steps(orange=10, red=60),
        ),
        stat("Open cases", "Cases on their way, in both lanes.", f"sum({latest(m.OPEN_CASES, 'step', 'lane')})", decimals=0),
        stat(
            "Oldest live case",
            "Seconds since the oldest live case that is still open was accepted.",
            latest(m.QUEUE_AGE, where=_LIVE),
            unit="s",
            steps=Steps(orange=60, red=300),
        ),
        stat(
            "Dead in the range",
            "Cases that were given up in the time range: each has a reason (`unmask dead list`).",
            f"{_DEAD} or vector(0)",
            decimals=0,
            steps=Steps(red=1),
        ),
    ),
)

_THROUGHPUT = Row(
    "Throughput",
    (
        stack(
            "Cases that end",
            "By lane and end: decided, failed (the caller must act), dead (given up), erased.",
            Query(rate(m.CASE_SECONDS, "lane", "state"), "{{lane}} {{state}}"),
            unit="ops",
        ),
        stack("Steps", "Steps worked a second.", Query(rate(m.STAGE_SECONDS, "step"), "{{step}}"), unit="ops"),
        lines(
            "Verdicts taken again",
            "Share of ingested pictures whose bytes were judged before under the same release and policy: no model was asked.",
            Query(share(m.STAGE_OUTCOMES, of='outcome="reused"', among='step="ingest", outcome=~"done|reused"'), "reused"),
            unit="percentunit",
        ),
    ),
)

_LATENCY = Row(
    "Latency",
    (
        *(
            lines(
                f"Step {step}",
                f"Seconds that step {step} of one case takes in a worker, waiting for models included.",
                *quantiles(m.STAGE_SECONDS, where=f'step="{step}"'),
                unit="s",
                width=6,
            )
            for step in ("ingest", "align", "classify", "localize")
        ),
        lines(
            "Live cases, from acceptance to end",
            "What callers see.",
            *quantiles(m.CASE_SECONDS, where=_LIVE),
            unit="s",
            width=12,
        ),
        lines(
            "Batch cases, from acceptance to end",
            "What imports see; they give way to live cases.",
            *quantiles(m.CASE_SECONDS, where='lane="batch"'),
            unit="s",
            width=12,
        ),
    ),
)

_QUEUES = Row(
    "Queues",
    (
        stack(
            "Depth",
            "Open cases by the step that they wait for, as the store has them.",
            Query(latest(m.OPEN_CASES, "step", "lane"), "{{step}} {{lane}}"),
        ),
        lines(
            "Age",
            "Seconds since the oldest case that waits for the step was accepted.",
            Query(latest(m.QUEUE_AGE, "step", "lane"), "{{step}} {{lane}}"),
            unit="s",
            steps=Steps(orange=60, red=300),
        ),
        lines(
            "Live cases that are late",
            "Share that took more than a minute or died, over four windows: what the alert on the service level looks at.",
            *(Query(f"unmask:live_cases_late:ratio_rate{window}", window) for window in ("5m", "30m", "1h", "6h")),
            unit="percentunit",
            steps=Steps(orange=0.06, red=0.144),
        ),
    ),
)

_OUTCOMES = Row(
    "Outcomes",
    (
        stack(
            "What came of steps",
            "Steps a second: done, reused, to be tried again, failed (the caller must act), dead.",
            Query(rate(m.STAGE_OUTCOMES, "step", "outcome"), "{{step}} {{outcome}}"),
            unit="ops",
        ),
        lines(
            "Why steps did not go well",
            "By the code of the failure; the case's row has the words.",
            Query(rate(m.STAGE_OUTCOMES, "step", "code", where='code!="none"'), "{{step}} {{code}}"),
            unit="ops",
        ),
        lines(
            "Background duties",
            "What sweepers and shadows do: cases published again or expired, orphans removed; NAME_failed: it broke.",
            Query(rate(m.DUTIES, "duty"), "{{duty}}"),
            unit="ops",
        ),
    ),
)

PIPELINE = Dashboard(
    "pipeline",
    "Unmask / Pipeline",
    "How many pictures go through, how long they take, and where they wait.",
    (_GLANCE, _THROUGHPUT, _LATENCY, _QUEUES, _OUTCOMES),
)
