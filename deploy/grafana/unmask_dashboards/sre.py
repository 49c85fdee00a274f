"""The dashboard SRE: errors, saturation, what is dead, deliveries, the store, certificates."""

from __future__ import annotations

from unmask.core import metrics as m
from unmask_dashboards.panels import Dashboard, Query, Row, Steps, lines, stack, stat
from unmask_dashboards.queries import latest, quantile, quantiles, rate, share

# Whom an error accuses: these are ours or our servers', all others the caller's.
_OURS = 'code=~"internal|unavailable|deadline_exceeded|misconfigured|bad_config|bad_model|store_corrupt"'
_BROKEN = rate(m.DUTIES, "duty", where='duty=~".+_failed"')
_AGAIN = rate(m.DUTIES, where='duty="published_again"')
# 0 while somebody could have counted: a line that ends is a sweeper that is gone, not a quiet day.
_NOTHING = f"sum(0 * {m.WATCHED_AT.name})"
_BUSY = (
    f"sum by (instance) (rate({m.STAGE_SECONDS.name}_sum[$__rate_interval]))"
    f" / on (instance) group_right {latest(m.WORKER_SLOTS, 'instance', 'process')}"
)
_READ_AGE = f"time() - {latest(m.WATCHED_AT)}"
_EXPIRY = f"min by (process) ({m.CERTIFICATE_EXPIRY.name}) - time()"

_GLANCE = Row(
    "At a glance",
    (
        stat(
            "Processes",
            "Processes of Unmask whose page is scraped.",
            f"count({m.BUILD_INFO.name})",
            decimals=0,
            steps=Steps(red=1, falling=True),
        ),
        stat(
            "Alerts",
            "Alerts of Unmask that fire.",
            'count(ALERTS{alertname=~"Unmask.*", alertstate="firing"}) or vector(0)',
            decimals=0,
            steps=Steps(red=1),
        ),
        stat(
            "Calls that fail by our fault",
            "Share of the gRPC calls that end with an error that is not the caller's.",
            share(m.RPC_SECONDS, of=_OURS),
            unit="percentunit",
            steps=Steps(orange=0.01, red=0.05),
        ),
        stat(
            "Dead items",
            "Dead cases, events and letters that somebody must see to: `unmask dead list`.",
            f"sum({latest(m.DEAD_ITEMS, 'kind')})",
            decimals=0,
            steps=Steps(red=1),
        ),
        stat(
            "Store last read",
            "Seconds since a sweeper last read queue, outbox and dead items.",
            _READ_AGE,
            unit="s",
            steps=Steps(orange=30, red=120),
        ),
        stat(
            "Certificate",
            "How long the first TLS certificate to run out is still valid.",
            f"min({_EXPIRY})",
            unit="s",
            steps=Steps(orange=14 * 86400, red=3 * 86400, falling=True),
        ),
    ),
)

_ERRORS = Row(
    "Errors",
    (
        lines(
            "Steps that did not go well",
            "By the code of the failure: `unavailable` passes, `bad_model`, `bad_config` and `store_corrupt` want an operator, "
            "`internal` and `worker_lost` a look into the log.",
            Query(rate(m.STAGE_OUTCOMES, "code", where='code!="none"'), "{{code}}"),
            unit="ops",
        ),
        lines(
            "gRPC errors",
            "Calls a second that end with an error, by code.",
            Query(rate(m.RPC_SECONDS, "code", where='code!="ok"'), "{{code}}"),
            unit="ops",
        ),
        lines("gRPC calls", "Calls a second by method.", Query(rate(m.RPC_SECONDS, "method"), "{{method}}"), unit="ops"),
        lines(
            "gRPC latency, p95",
            "Seconds that one call in twenty exceeds; `WaitVerdict` and `Check` wait for the pipeline.",
            Query(quantile(0.95, m.RPC_SECONDS, "method"), "{{method}}"),
            unit="s",
            width=12,
        ),
        lines(
            "Duties that break",
            "Background duties a second that failed; they are tried again by themselves.",
            Query(f"{_BROKEN} or {_NOTHING}", "{{duty}}"),
            unit="ops",
            width=12,
            steps=Steps(red=0.01),
        ),
    ),
)

_SATURATION = Row(
    "Saturation",
    (
        lines(
            "Busy workers",
            "Share of a worker's places that are taken. Near 1 more workers are needed: scale by this, or by the queue.",
            Query(_BUSY, "{{process}} {{instance}}"),
            unit="percentunit",
            steps=Steps(orange=0.7, red=0.9),
        ),
        lines(
            "Processors",
            "Processors in use; of workers with child processes this is not known.",
            Query("rate(process_cpu_seconds_total[$__rate_interval])", "{{job}} {{instance}}"),
        ),
        lines(
            "Memory",
            "Resident memory; of workers with child processes this is not known.",
            Query("process_resident_memory_bytes", "{{job}} {{instance}}"),
            unit="bytes",
        ),
    ),
)

_DELIVERY = Row(
    "Deliveries",
    (
        stack(
            "Attempts",
            "Attempts a second to deliver an event, by sink and outcome.",
            Query(rate(m.DELIVERIES, "sink", "outcome"), "{{sink}} {{outcome}}"),
            unit="ops",
        ),
        lines(
            "Lag",
            "Seconds from an event to its acceptance, all attempts included.",
            *quantiles(m.DELIVERY_LAG, "sink"),
            unit="s",
            steps=Steps(orange=10, red=60),
        ),
        lines(
            "Outbox",
            "Events that have still to go out. One dead receiver may keep some for three days.",
            Query(latest(m.OUTBOX_EVENTS), "events"),
        ),
        lines(
            "Oldest event",
            "Seconds since the oldest event that has to go out happened.",
            Query(latest(m.OUTBOX_AGE), "oldest"),
            unit="s",
            width=12,
        ),
        lines(
            "Dead items by kind",
            "What was given up and waits for a person, by kind.",
            Query(latest(m.DEAD_ITEMS, "kind"), "{{kind}}"),
            width=12,
            steps=Steps(red=1),
        ),
    ),
)

_STORE = Row(
    "Store and certificates",
    (
        lines(
            "Time to read the store",
            "Seconds that a sweeper's look at queue, outbox and dead items takes: a busy or bloated database shows here first.",
            Query(latest(m.WATCH_SECONDS), "seconds"),
            unit="s",
            steps=Steps(orange=0.5, red=2),
        ),
        lines(
            "Cases published again",
            "Cases a second whose message or worker was lost, or that were due again.",
            Query(f"{_AGAIN} or {_NOTHING}", "published again"),
            unit="ops",
        ),
        lines(
            "Certificates",
            "How long the TLS certificate of each process is still valid.",
            Query(_EXPIRY, "{{process}}"),
            unit="s",
            steps=Steps(orange=14 * 86400, red=3 * 86400, falling=True),
        ),
    ),
)

SRE = Dashboard(
    "sre",
    "Unmask / SRE",
    "Errors, saturation, what is dead, deliveries, the store and certificates.",
    (_GLANCE, _ERRORS, _SATURATION, _DELIVERY, _STORE),
)
