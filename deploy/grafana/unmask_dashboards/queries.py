"""PromQL out of the declared metrics, so that a dashboard cannot name one that Unmask does not have."""

from __future__ import annotations

from unmask.core.metrics import Kind, Metric
from unmask_dashboards.panels import Query

# Grafana puts in at least four scrapes.
_WINDOW = "$__rate_interval"


def rate(metric: Metric, *by: str, where: str = "", window: str = _WINDOW) -> str:
    """Per second: of a counter its growth, of a histogram how many were observed."""
    return _summed("rate", metric, by, where, window)


def growth(metric: Metric, *by: str, where: str = "", window: str = "$__range") -> str:
    """Over the window, by default the dashboard's whole time range."""
    return _summed("increase", metric, by, where, window)


def share(metric: Metric, *by: str, of: str, among: str = "", window: str = _WINDOW) -> str:
    """Share of what matches `of` in what matches `among`; 0 where there is none, nothing where there is nothing to share."""
    part, whole = (_summed("rate", metric, by, where, window) for where in (_both(of, among), among))
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def latest(metric: Metric, *by: str, where: str = "") -> str:
    """A gauge that several processes may show, once: the highest."""
    return f"max{_by(by)} ({metric.name}{{{where}}})" if where else f"max{_by(by)} ({metric.name})"


def quantile(share_below: float, metric: Metric, *by: str, where: str = "", window: str = _WINDOW) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share_below}, {buckets(metric, *by, where=where, window=window)})"


def quantiles(metric: Metric, *by: str, where: str = "", window: str = _WINDOW) -> tuple[Query, ...]:
    """The median, and what one in twenty and one in a hundred exceeds."""
    named = " ".join(f"{{{{{label}}}}}" for label in by)
    return tuple(
        Query(quantile(part, metric, *by, where=where, window=window), f"{name} {named}".strip())
        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    )


def buckets(metric: Metric, *by: str, where: str = "", window: str = _WINDOW) -> str:
    """The buckets of a histogram by their bounds."""
    return f"sum{_by((*by, 'le'))} (rate({metric.name}_bucket{{{where}}}[{window}]))".replace("{}", "")


def above(metric: Metric, bound: str, *by: str, window: str = _WINDOW) -> str:
    """Share of what a histogram observed above one of its bounds."""
    low = f'sum{_by(by)} (rate({metric.name}_bucket{{le="{bound}"}}[{window}]))'
    return f"1 - {low} / ({rate(metric, *by, window=window)} > 0)"


def _summed(function: str, metric: Metric, by: tuple[str, ...], where: str, window: str) -> str:
    name = f"{metric.name}_count" if metric.kind is Kind.HISTOGRAM else metric.name
    return f"sum{_by(by)} ({function}({name}{{{where}}}[{window}]))".replace("{}", "")


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _both(one: str, other: str) -> str:
    return ", ".join(part for part in (one, other) if part)
