"""Charts of the report as static SVG, drawn by Vega-Lite when the page is made: the page needs no library and no network.

Colours are the page's own custom properties (``var(--model)``), so that one picture serves light and dark. Every chart is `WIDTH`
wide over all, for text of one size. Texts from the data are escaped by Vega.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

WIDTH = 420
# A width that vl-convert can measure everywhere (it carries the font), in metrics like those of the fonts that browsers have.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
# What a point of `intervals` stands for: colour and symbol, the last a thin upright bar.
KINDS = {
    "model": ("var(--model)", "circle"),
    "n-gram regression": ("var(--other)", "diamond"),
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
    # The page names each chart and has its numbers in a table beside it.
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
    return {"values": list(records)}


def _number(field: str, title: str, ticks: int = 6, **scale: Any) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False, **scale}, "axis": {"tickCount": ticks}}


def _plot(layers: Sequence[Spec], height: int = 230, **more: Any) -> str:
    return svg({"width": WIDTH, "height": height, "autosize": {"type": "fit", "contains": "padding"}, "layer": list(layers), **more})


def intervals(records: Sequence[Mapping[str, Any]], labels: int) -> str:
    """Scores in rows, with intervals.

    Parameters
    ----------
    records : sequence of mapping
        ``group`` (rows of one stand together), ``name`` of the row, ``kind`` of the point (of `KINDS`), ``value``; ``low`` and
        ``high`` where there is an interval.
    labels : int
        Room for the names, in pixels.
    """
    row = {"field": "name", "type": "nominal", "title": None, "sort": None}
    kinds = [kind for kind in KINDS if any(record["kind"] == kind for record in records)]
    colour, shape = (
        {"field": "kind", "type": "nominal", "scale": {"domain": kinds, "range": [KINDS[kind][part] for kind in kinds]}} for part in (0, 1)
    )
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
                "y": {**row, "axis": {"minExtent": labels, "maxExtent": labels}},
                "color": colour,
                "shape": shape,
            },
        },
    ]
    return svg(
        {
            "data": _data(records),
            "facet": {"row": {"field": "group", "type": "nominal", "sort": list(dict.fromkeys(record["group"] for record in records))}},
            "spec": {"width": WIDTH - labels - 30, "height": {"step": 22}, "layer": layer},
            "resolve": {"scale": {"y": "independent"}},
            "spacing": 8,
        }
    )


def lines(
    records: Sequence[Mapping[str, Any]], x: str, y: str, *, marks: Sequence[Mapping[str, Any]] = (), dots: bool = False, **scale: Any
) -> str:
    """Lines, one for each ``kind``.

    Parameters
    ----------
    records : sequence of mapping
        ``x``, ``y``, ``kind``.
    x, y : str
        Titles of the axes.
    marks : sequence of mapping
        Upright rules: ``x`` and the ``text`` beside it.
    dots : bool
        Whether each record is a dot on its line.
    **scale
        Of both axes, as ``domain``.
    """
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    colour: Spec = {"field": "kind", "type": "nominal", "sort": None}
    if len(kinds) == 1:
        colour["legend"] = None
    across, up = _number("x", x, nice=False, **scale), _number("y", y, **scale)
    layer: list[Spec] = [
        {
            "data": _data(records),
            "mark": {"type": "line", "point": {"size": 45} if dots else False},
            "encoding": {"x": across, "y": up, "color": colour},
        }
    ]
    if marks:
        place = {"x": {"field": "x", "type": "quantitative"}}
        text = {"type": "text", "align": "left", "dx": 5, "baseline": "bottom", "fontSize": 13.5, "fill": "var(--ink)"}
        layer += [
            {"data": _data(marks), "mark": {"type": "rule", "color": "var(--muted)", "strokeDash": [4, 3]}, "encoding": place},
            {
                "data": _data(marks),
                "mark": text,
                "encoding": {**place, "y": {"field": "height", "type": "quantitative"}, "text": {"field": "text", "type": "nominal"}},
            },
        ]
    return _plot(layer)


def loss(records: Sequence[Mapping[str, Any]]) -> str:
    """Loss by step: ``step``, ``loss`` and ``mean``, the running mean, over it."""
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
    """Share of relevant rows over mean probability, bins by ``rows``; on the dashed line a probability is what it says."""
    ends = [{"probability": 0, "share": 0}, {"probability": 1, "share": 1}]
    place = {"x": _number("probability", "mean p(relevant)", domain=[0, 1]), "y": _number("share", "share of relevant rows", domain=[0, 1])}
    layer: list[Spec] = [
        {"data": _data(ends), "mark": {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1, "color": "var(--muted)"}, "encoding": place},
        {
            "data": _data(records),
            "mark": {"type": "line", "color": "var(--model)", "point": {"color": "var(--model)", "size": 45}},
            "encoding": place,
        },
    ]
    return _plot(layer)


def stacked(records: Sequence[Mapping[str, Any]], kinds: Sequence[str], x: str) -> str:
    """Rows by ``name``, stacked by ``kind``: ``rows``."""
    encoding = {
        "y": {"field": "name", "type": "nominal", "title": None, "sort": None},
        "x": {"field": "rows", "type": "quantitative", "title": x, "axis": {"tickCount": 5, "format": ",d"}},
        "color": {"field": "kind", "type": "nominal", "scale": {"domain": list(kinds)}},
        "order": {"field": "order", "type": "quantitative"},
    }
    ordered = [{**record, "order": kinds.index(record["kind"])} for record in records]
    names = len({record["name"] for record in records})
    return _plot([{"mark": "bar", "encoding": encoding}], height=90 + 20 * names, data=_data(ordered))


def quantiles(records: Sequence[Mapping[str, Any]], x: str) -> str:
    """Boxes of ``q25`` to ``q75`` on lines of ``q05`` to ``q95`` with a tick at ``q50``, one for each ``name``."""
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
