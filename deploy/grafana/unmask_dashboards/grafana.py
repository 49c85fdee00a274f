"""Grafana's JSON of a dashboard, by Grafana's own builders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shown
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from unmask.core.metrics import VERDICTS
from unmask_dashboards.panels import Dashboard, Look, Panel, Query, Steps

_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_GREEN, _ORANGE, _RED = "green", "orange", "red"


def to_json(told: Dashboard) -> str:
    """The dashboard's file; the same for the same dashboard."""
    made = (
        build.Dashboard(told.title)
        .uid(f"unmask-{told.uid}")
        .description(told.description)
        .tags(["unmask"])
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(build.DashboardLink("Unmask").type(model.DashboardLinkType.DASHBOARDS).tags(["unmask"]).as_dropdown(True))
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if told.tenants:
        made = made.with_variable(_tenant_variable())
    number = 0
    for row in told.rows:
        made = made.with_row(build.Row(row.title).id(number := number + 1))
        for panel in row.panels:
            made = made.with_panel(_panel(panel).id(number := number + 1))
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(made.build())
    return text + "\n"


def _tenant_variable() -> Any:
    return (
        build.QueryVariable("tenant")
        .label("Tenant")
        .datasource(_SOURCE)
        .query(f"label_values({VERDICTS.name}, tenant)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(told: Panel) -> Any:
    made = _LOOKS[told.look](told)
    made = made.title(told.title).description(told.description).datasource(_SOURCE).span(told.width).height(told.height)
    if told.look is not Look.HEATMAP:
        made = made.unit(told.unit)
    if told.decimals is not None:
        made = made.decimals(told.decimals)
    if told.most is not None:
        made = made.max(told.most)
    if told.steps is not None:
        made = made.thresholds(_thresholds(told.steps))
    for letter, query in zip("ABCDEFGH", told.queries, strict=False):
        made = made.with_target(_target(told.look, query).ref_id(letter))
    return made


def _target(look: Look, query: Query) -> Any:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").datasource(_SOURCE)
    if look is Look.TABLE:
        return made.format(PromQueryFormat.TABLE).instant()
    if look in {Look.STAT, Look.BARS}:
        return made.instant()
    return made.format(PromQueryFormat.HEATMAP).range() if look is Look.HEATMAP else made.range()


def _thresholds(steps: Steps) -> Any:
    levels = [(value, colour) for value, colour in ((steps.orange, _ORANGE), (steps.red, _RED)) if value is not None]
    if steps.falling:  # the colour of the lowest band first
        bounds = [value for value, _ in levels][::-1]
        colours = [*(colour for _, colour in levels[::-1]), _GREEN]
    else:
        bounds, colours = [value for value, _ in levels], [_GREEN, *(colour for _, colour in levels)]
    made = [model.Threshold(value=value, color=colour) for value, colour in zip([None, *bounds], colours, strict=True)]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _lines(told: Panel) -> Any:
    legend = common.VizLegendOptions().display_mode(shown.LegendDisplayMode.LIST).placement(shown.LegendPlacement.BOTTOM)
    legend = legend.show_legend(True).calcs([])
    tooltip = common.VizTooltipOptions().mode(shown.TooltipDisplayMode.MULTI).sort(shown.SortOrder.DESCENDING)
    made = timeseries.Panel().legend(legend).tooltip(tooltip).min(0).line_width(1).show_points(shown.VisibilityMode.NEVER)
    if told.look is Look.STACK:
        made = made.fill_opacity(30).stacking(common.StackingConfig().mode(shown.StackingMode.NORMAL))
    if told.steps is not None:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(shown.GraphTresholdsStyleMode.DASHED))
    return made


def _stat(told: Panel) -> Any:
    made = stat.Panel().graph_mode(shown.BigValueGraphMode.NONE).no_value("no data")
    made = made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if told.words:
        words = {str(number): model.ValueMappingResult(text=word, index=number) for number, word in enumerate(told.words)}
        made = made.mappings([model.ValueMap(options=words)])
    return made


def _bars(told: Panel) -> Any:
    made = bargauge.Panel().orientation(shown.VizOrientation.HORIZONTAL).display_mode(shown.BarGaugeDisplayMode.GRADIENT)
    return made.min(0).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _heatmap(told: Panel) -> Any:
    colours = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return heatmap.Panel().calculate(False).color(colours).show_legend()


def _table(told: Panel) -> Any:
    hide = {"excludeByName": dict.fromkeys(told.hidden, True)}
    return table.Panel().with_transformation(model.DataTransformerConfig(id_val="organize", options=hide))


_LOOKS: Final[dict[Look, Callable[[Panel], Any]]] = {
    Look.LINES: _lines,
    Look.STACK: _lines,
    Look.STAT: _stat,
    Look.BARS: _bars,
    Look.HEATMAP: _heatmap,
    Look.TABLE: _table,
}
