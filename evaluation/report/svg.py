"""Plots as SVG: axes, lines and dots, in the colours of the page around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
Tick = tuple[float, str]

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 44
# Room that one label needs, in the units of the drawing.
TICK_WIDTH, TICK_HEIGHT = 90, 46
TICK_MARGIN = 12


@dataclass(frozen=True, slots=True)
class Series:
    """Points with a name; `role` is the CSS class that gives them their colour."""

    name: str
    role: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn; `x_ticks` stand in the place of those that would be chosen."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_y: bool = False
    x_ticks: Sequence[Tick] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value; what is beyond the axis is drawn at its end."""
        low, high, value = (self._scaled(v) for v in (self.low, self.high, value))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 1)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.log else value


def draw(plot: Plot, width: int, height: int) -> str:
    """Return an SVG element of that size."""
    points = [point for series in plot.series for point in series.points]
    x = _x_axis(plot, [x for x, _ in points], width)
    y = _y_axis([y for _, y in points], height, log=plot.log_y)
    x_ticks = plot.x_ticks or _steps(x, width // TICK_WIDTH)
    y_ticks = _decades(y) if plot.log_y else _steps(y, height // TICK_HEIGHT)
    parts = [
        *(_horizontal(y.at(value), label, width) for value, label in y_ticks),
        *(_under(x.at(value), label, width, height) for value, label in x_ticks),
        _label(LEFT, TOP - 2, plot.y_label, "start"),
        _label(width - RIGHT, height - 6, plot.x_label, "end"),
        *(_path(series, x, y) for series in plot.series if series.points),
    ]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(plot.title)}">'
        f"{''.join(parts)}</svg>"
    )


def _x_axis(plot: Plot, values: Sequence[float], width: int) -> Axis:
    ends = [value for value, _ in plot.x_ticks] or [0.0, max(values, default=1.0) or 1.0]
    return Axis(min(ends), max(ends), LEFT, width - RIGHT)


def _y_axis(values: Sequence[float], height: int, *, log: bool) -> Axis:
    bottom, top = height - BOTTOM, TOP + 12
    if not log:
        low, high = min(0.0, *values, 0.0), max(*values, 1e-9, 0.0)
        return Axis(low, high * 1.05, bottom, top)
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return Axis(10.0**low, 10.0 ** max(high, low + 1), bottom, top, log=True)


def _steps(axis: Axis, number: int) -> list[Tick]:
    """Return about so many round values of an axis."""
    rough = (axis.high - axis.low) / max(number, 2)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [(n * step, written(n * step)) for n in range(first, last + 1)]


def _decades(axis: Axis) -> list[Tick]:
    low, high = round(math.log10(axis.low)), round(math.log10(axis.high))
    return [(10.0**n, written(10.0**n)) for n in range(low, high + 1)]


def written(value: float) -> str:
    """Write a number for an axis: 0.1, 20, 1,500, 1.2M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _horizontal(y: float, label: str, width: int) -> str:
    line = f'<path class="grid" d="M{LEFT} {y}H{width - RIGHT}"/>'
    return line + _label(LEFT - 8, y + 4, label, "end")


def _under(x: float, label: str, width: int, height: int) -> str:
    # The last one would stick out.
    anchor = "end" if x > width - RIGHT - TICK_MARGIN else "middle"
    return _label(x, height - BOTTOM + 18, label, anchor)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(series: Series, x: Axis, y: Axis) -> str:
    places = [f"{x.at(one)} {y.at(other)}" for one, other in series.points]
    # A dot is a line of no length with round ends: the shortest way to write thousands of them.
    data = "".join(f"M{place}h0" for place in places) if series.dots else "M" + "L".join(places)
    kind = "dots" if series.dots else "line"
    return f'<path class="{kind} {series.role}" d="{data}"/>'
