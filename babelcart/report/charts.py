"""Charts as static SVG. Vega-Lite draws them when the page is written, so that the page needs no library and no network.

Colours are custom properties of the page's style sheet (``var(--model)``), so that one SVG fits the light and the dark theme. Every chart
is `WIDTH` pixels wide, so that all text has the same size. Vega escapes text from the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

WIDTH = 420
# vl-convert contains the first font, so that text is as wide on every machine; the others have similar metrics.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
# Kinds of points of `intervals`: colour and symbol. The last symbol is a thin vertical bar.
KINDS = {
    "model": ("var(--model)", "circle"),
    "n-gram baseline": ("var(--other)", "diamond"),
    "floor": ("var(--muted)", "M-.16,-1H.16V1H-.16Z"),
}
_SMALL = {
    "labelColor": "var(--muted)",
    "titleColor": "var(--muted)",
    "labelFontSize": 13.5,
    "titleFontSize": 13.5,
    "titleFontWeight": "normal",
}
_CONFIG: Spec = {
    # The page describes each chart itself and shows its numbers in a table.
    "aria": False,
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        **_SMALL,
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "labelLimit": 165,
        "labelFlush": False,
        "labelOverlap": True,
    },
    "header": {"title": None, "labelColor": "var(--muted)", "labelFontSize": 13.5, "labelAnchor": "start", "labelOrient": "top"},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--ink)",
        "labelFontSize": 13.5,
        "symbolSize": 90,
        "symbolOpacity": 1,
        "columnPadding": 14,
    },
    "range": {"category": ["var(--model)", "var(--other)", "var(--third)", "var(--muted)"]},
    "line": {"strokeWidth": 2},
}


def svg(spec: Spec) -> str:
    """Draw a Vega-Lite specification; equal specifications give equal text."""
    from vl_convert import vegalite_to_svg

    return str(vegalite_to_svg({"config": _CONFIG, **spec}, vl_version="6.4", allowed_base_urls=[]))


def _data(records: Sequence[Mapping[str, Any]]) -> Spec:
    """Return records as the inline data of a chart."""
    return {"values": list(records)}


def _number(field: str, title: str, ticks: int = 6, **scale: Any) -> Spec:
    """Return a quantitative channel with about `ticks` ticks; `scale` are further properties of the scale."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, **scale}, "axis": {"tickCount": ticks}}


def _plot(layers: Sequence[Spec], height: int = 230, **more: Any) -> str:
    """Draw a layered chart as SVG; `more` are further properties of the specification."""
    return svg({"width": WIDTH, "height": height, "autosize": {"type": "fit", "contains": "padding"}, "layer": list(layers), **more})


def intervals(records: Sequence[Mapping[str, Any]], label_width: int) -> str:
    """Draw points on lines, one line for each name, with confidence intervals.

    Parameters
    ----------
    records : sequence of mapping
        One point each: ``group`` of lines, ``name`` of the line, ``kind`` (a key of `KINDS`) and ``value``; ``low`` and ``high`` if it
        has an interval.
    label_width : int
        Width of the names, in pixels.
    """
    row = {"field": "name", "type": "nominal", "title": None, "sort": None}
    groups = list(dict.fromkeys(record["group"] for record in records))
    kinds = [kind for kind in KINDS if any(record["kind"] == kind for record in records)]
    colours, symbols = zip(*(KINDS[kind] for kind in kinds), strict=True)
    colour = {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": list(colours)}}
    shape = {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": list(symbols)}}
    layer = [
        {
            "transform": [{"filter": "isValid(datum.low)"}],
            "mark": {"type": "rule", "strokeWidth": 5, "opacity": 0.4, "strokeCap": "round"},
            "encoding": {"x": _number("low", "F1", 4), "x2": {"field": "high"}, "y": row, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 1, "size": 75},
            "encoding": {
                "x": _number("value", "F1", 4),
                "y": {**row, "axis": {"minExtent": label_width, "maxExtent": label_width}},
                "color": colour,
                "shape": shape,
            },
        },
    ]
    return svg(
        {
            "data": _data(records),
            "facet": {"row": {"field": "group", "type": "nominal", "sort": groups}},
            "spec": {"width": WIDTH - label_width - 30, "height": {"step": 22}, "layer": layer},
            "resolve": {"scale": {"y": "independent"}},
            "spacing": 8,
        }
    )


def lines(records: Sequence[Mapping[str, Any]], x: str, y: str, *, rules: Sequence[Mapping[str, Any]] = (), dots: bool = False) -> str:
    """Draw one line for each kind.

    Parameters
    ----------
    records : sequence of mapping
        One point each: ``x``, ``y`` and ``kind``.
    x, y : str
        Titles of the axes.
    rules : sequence of mapping
        Vertical rules: ``x``, and a ``text`` next to the rule at ``height``.
    dots : bool
        Whether to draw the points as dots.
    """
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    colour: Spec = {"field": "kind", "type": "nominal", "sort": None}
    if len(kinds) == 1:
        colour["legend"] = None
    horizontal, vertical = _number("x", x, nice=False), _number("y", y)
    layer: list[Spec] = [
        {
            "data": _data(records),
            "mark": {"type": "line", "point": {"size": 45} if dots else False},
            "encoding": {"x": horizontal, "y": vertical, "color": colour},
        }
    ]
    if rules:
        position = {"x": {"field": "x", "type": "quantitative"}}
        text = {"type": "text", "align": "left", "dx": 5, "baseline": "bottom", "fontSize": 13.5, "fill": "var(--ink)"}
        layer += [
            {"data": _data(rules), "mark": {"type": "rule", "color": "var(--muted)", "strokeDash": [4, 3]}, "encoding": position},
            {
                "data": _data(rules),
                "mark": text,
                "encoding": {**position, "y": {"field": "height", "type": "quantitative"}, "text": {"field": "text", "type": "nominal"}},
            },
        ]
    return _plot(layer)


def loss(records: Sequence[Mapping[str, Any]]) -> str:
    """Draw the loss by step, and its running mean.

    Parameters
    ----------
    records : sequence of mapping
        ``step``, ``loss`` and ``mean``.
    """
    x = _number("step", "step", nice=False)
    layer: list[Spec] = [
        {
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.4, "color": "var(--muted)"},
            "encoding": {"x": x, "y": _number("loss", "loss")},
        },
        {"mark": {"type": "line", "color": "var(--model)"}, "encoding": {"x": x, "y": _number("mean", "loss")}},
    ]
    return _plot(layer, data=_data(records))


def calibration(records: Sequence[Mapping[str, Any]]) -> str:
    """Draw the share of relevant rows by mean probability; on the dashed diagonal, calibration is perfect.

    Parameters
    ----------
    records : sequence of mapping
        One bin each: ``probability`` and ``share``.
    """
    diagonal = [{"probability": 0, "share": 0}, {"probability": 1, "share": 1}]
    position = {
        "x": _number("probability", "mean p(relevant)", domain=[0, 1]),
        "y": _number("share", "share of relevant rows", domain=[0, 1]),
    }
    layer: list[Spec] = [
        {
            "data": _data(diagonal),
            "mark": {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1, "color": "var(--muted)"},
            "encoding": position,
        },
        {
            "data": _data(records),
            "mark": {"type": "line", "color": "var(--model)", "point": {"color": "var(--model)", "size": 45}},
            "encoding": position,
        },
    ]
    return _plot(layer)


def stacked(records: Sequence[Mapping[str, Any]], kinds: Sequence[str], x: str) -> str:
    """Draw stacked bars of row counts, one bar for each name.

    Parameters
    ----------
    records : sequence of mapping
        ``name`` of the bar, ``kind`` and the number of ``rows``.
    kinds : sequence of str
        All kinds, in stacking order.
    x : str
        Title of the horizontal axis.
    """
    encoding = {
        "y": {"field": "name", "type": "nominal", "title": None, "sort": None},
        "x": {"field": "rows", "type": "quantitative", "title": x, "axis": {"tickCount": 5, "format": ",d"}},
        "color": {"field": "kind", "type": "nominal", "scale": {"domain": list(kinds)}},
        "order": {"field": "order", "type": "quantitative"},
    }
    ordered = [{**record, "order": kinds.index(record["kind"])} for record in records]
    bars = len({record["name"] for record in records})
    return _plot([{"mark": "bar", "encoding": encoding}], height=90 + 20 * bars, data=_data(ordered))


def quantiles(records: Sequence[Mapping[str, Any]], x: str) -> str:
    """Draw the quantiles of a distribution for each name: a line from 5 to 95 %, a box from 25 to 75 % and a tick at the median.

    Parameters
    ----------
    records : sequence of mapping
        ``name``, ``q05``, ``q25``, ``q50``, ``q75`` and ``q95``.
    x : str
        Title of the horizontal axis.
    """
    row = {"field": "name", "type": "nominal", "title": None, "sort": None}
    layer: list[Spec] = [
        {"mark": {"type": "rule", "color": "var(--model)"}, "encoding": {"y": row, "x": _number("q05", x), "x2": {"field": "q95"}}},
        {
            "mark": {"type": "bar", "size": 14, "color": "var(--model)", "opacity": 0.6},
            "encoding": {"y": row, "x": _number("q25", x), "x2": {"field": "q75"}},
        },
        {"mark": {"type": "tick", "size": 18, "thickness": 3, "color": "var(--ink)"}, "encoding": {"y": row, "x": _number("q50", x)}},
    ]
    return _plot(layer, height=50 + 34 * len(records), data=_data(records))
