"""The report of an evaluation: one self-contained page made from its JSON, and the tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unmask_training.measuring import plots
from unmask_training.measuring.measures import markdown, percent

_SPELT: Final = {"auc": "AUC", "ece": "ECE", "recall_at_fpr_0.01": "recall at FPR 1 %"}


def spelt(name: str) -> str:
    """A figure's name as people write it."""
    return _SPELT.get(name, name.replace("_", " "))


def page(report: Mapping[str, Any]) -> str:
    """The HTML page of what `detector.evaluate.report` found; it loads nothing from anywhere."""
    pages = Environment(
        loader=PackageLoader("unmask_training.measuring", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("evaluation.html.j2").render(
        report=report,
        clean=report["tiers"]["clean"],
        pooled=pooled_rows(report),
        further=further_rows(report),
        alarms=alarms(report),
        plots={name: Markup(drawing) for name, drawing in drawings(report).items()},  # drawn here
        percent=percent,
        spelt=spelt,
        share=lambda row: f"{row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f})",
    )


def drawings(report: Mapping[str, Any]) -> dict[str, str]:
    """Every plot that these figures allow, by name, as SVG."""
    clean = report["tiers"]["clean"]
    figures = {
        "roc": plots.roc(report),
        "histogram": plots.histogram(report),
        "reliability": plots.reliability(report),
        "risk": plots.risk_coverage(report),
        "kinds": plots.kinds(report),
    }
    if "attribution" in clean:
        figures["confusion"] = plots.confusion(clean["attribution"]["confusion"])
    figures |= {f"by {column}": plots.strata(column, bins) for column, bins in report["by"].items()}
    return {name: plots.svg(figure, name) for name, figure in figures.items()}


def pooled_rows(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Each pooled figure by name: one cell a tier, in per cent."""
    names = list(dict.fromkeys(name for tier in report["tiers"].values() for name in tier["pooled"]))
    tiers = [tier["pooled"] for tier in report["tiers"].values()]
    return {name: [percent(tier[name]) if name in tier else "" for tier in tiers] for name in names}


def alarms(report: Mapping[str, Any]) -> list[str]:
    """A line for each class whose evidence lies beside the face, or where none does for each such kind; clean tier."""
    told = report["tiers"]["clean"].get("shortcut")
    if told is None:
        return []
    rows = told["by_class"] if any(row["alarm"] for row in told["by_class"].values()) else told["by_kind"]
    return [
        f"{name}: {100 * row['evidence_outside']:.0f} % of the evidence lies beside the face, "
        f"{row['ratio']['value']:.2f} times its share of the view ({100 * row['area_outside']:.0f} %)"
        for name, row in rows.items()
        if row["alarm"]
    ]


def text(report: Mapping[str, Any]) -> str:
    """The figures as Markdown: the clean table, tiers side by side, further outputs, columns, alarms."""
    parts = [markdown(report["tiers"]["clean"])]
    if len(report["tiers"]) > 1:
        head = ["", *report["tiers"]]
        parts.append(_table(head, [[spelt(name), *cells] for name, cells in pooled_rows(report).items()]))
    further = [[name, *cells] for name, cells in further_rows(report).items()]
    parts += [_table(["", *report["tiers"]], further)] if further else []
    for column, bins in report["by"].items():
        names = ("accuracy_on_reals", "accuracy_on_fakes", "balanced_accuracy", "auc")
        head = [column, "reals", "fakes", *map(spelt, names)]
        cells = [
            [name, row["reals"], row["fakes"], *(percent(row[key]) if key in row else "" for key in names)]
            for name, row in bins.items()
        ]
        parts.append(_table(head, cells))
    parts += [f"shortcut alarm: {line}" for line in alarms(report)]
    return "\n\n".join(parts)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def further_rows(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Attribution, verification, doubt and blur gap by name: one cell a tier; a figure that no tier has is left out."""

    def at(tier: Mapping[str, Any], *path: str) -> Any:
        found: Any = tier
        for key in path:
            found = None if found is None else found.get(key)
        return found

    paths = {
        "family right, among known %": ("attribution", "accuracy_among_known"),
        "called unknown, of known families %": ("attribution", "unknown_on_known"),
        "called unknown, of other fakes %": ("attribution", "unknown_on_others"),
        "same generator or not, AUC %": ("verification",),
        "errors by score, AUROC %": ("doubt", "auroc_of_errors", "score"),
        "errors by doubt, AUROC %": ("doubt", "auroc_of_errors", "doubt"),
    }
    tiers = list(report["tiers"].values())
    found = {name: [at(tier, *path) for tier in tiers] for name, path in paths.items()}
    rows = {name: [percent(row) if row else "" for row in cells] for name, cells in found.items() if any(cells)}
    for name in ("signed_on_fakes", "signed_on_reals", "absolute_on_fakes", "absolute_on_reals"):
        cells = [at(tier, "blur_gap", name) for tier in tiers]
        if any(cells):
            label = f"plain minus blurred, {name.replace('_', ' ')} (logits)"
            rows[label] = [f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if row else "" for row in cells]
    return rows
