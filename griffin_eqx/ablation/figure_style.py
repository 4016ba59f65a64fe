"""How figures look: on a page, where text and colours are left to the style sheet, and alone. Needs Matplotlib.

On the page text stays text, and every colour becomes a CSS variable, so that one drawing serves paper, light and dark.
What belongs to a variant has the class `v0`, `v1`, ... by which the page hides it. Alone, a figure has fixed colours on
white and its letters as outlines.
"""

import re
from collections.abc import Callable
from typing import Any

from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline

LIGHT = ("#0a7eda", "#df4700", "#368b5f", "#9d0784", "#a985ab", "#3342ce", "#1f3614", "#492340")
"""Colours of variants on white: at least 3 to 1 in contrast, and apart for colour-blind eyes too (searched for)."""

DARK = ("#5aa6e7", "#fe7a44", "#26daaa", "#c900a8", "#fdd6ff", "#6663f6", "#657248", "#9b6880")
"""The same variants, in like hues, on a dark ground."""

MARKERS = "osD^vP*X<>ph"
"""Shapes of variants: with the colour they tell twelve apart, and eight in black and white."""

_INK, MUTED, _RULE, _PAPER = "#010101", "#020202", "#030303", "#040404"
_ALONE = {_INK: "#1a1a1a", MUTED: "#5f5f5f", _RULE: "#dcdcdc", _PAPER: "#ffffff"}
_ON_PAGE = {_INK: "var(--ink)", MUTED: "var(--muted)", _RULE: "var(--rule)", _PAPER: "var(--paper)"}


def marker_path(index: int) -> str:
    """The marker of a variant as the path of an SVG, in a square from -0.5 to 0.5 with y downwards."""
    style = MarkerStyle(MARKERS[index % len(MARKERS)])
    outline = style.get_path().transformed(style.get_transform())
    reach = max(abs(value) for value in outline.get_extents().extents) * 2
    letters = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    parts = []
    for points, code in outline.iter_segments(simplify=False):
        if code == Outline.CLOSEPOLY:
            parts.append("Z")
            continue
        ends = [f"{x / reach:.3f} {-y / reach:.3f}" for x, y in zip(points[::2], points[1::2], strict=True)]
        parts.append(letters[code] + " ".join(ends))
    return "".join(parts)


def variant_color(index: int, alone: bool) -> str:
    """The colour of a variant; on the page a sign that `for_page` makes a variable of."""
    return LIGHT[index % len(LIGHT)] if alone else f"#0501{index % len(LIGHT):02d}"


def settings(alone: bool) -> Any:
    """Matplotlib's parameters for a figure."""
    ink, muted, rule = (_ALONE[name] if alone else name for name in (_INK, MUTED, _RULE))
    return {
        "svg.fonttype": "path" if alone else "none",
        "svg.hashsalt": "griffin",  # the same numbers give the same file
        "text.parse_math": False,  # a name may hold a dollar sign
        "font.family": "DejaVu Sans",
        "font.size": 8.8,
        "axes.labelsize": 8.8,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "text.color": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": muted,
        "axes.linewidth": 0.7,
        "axes.titlecolor": ink,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "grid.color": rule,
        "grid.linewidth": 0.7,
        "axes.formatter.useoffset": False,
        "axes.unicode_minus": True,
        "figure.facecolor": "white" if alone else "none",
        "axes.facecolor": "none",
    }


def for_file(svg: str) -> str:
    """The drawing alone: fixed colours on white."""
    return _restyled(svg, lambda style: _replaced(style, _ALONE))


def for_page(svg: str, name: str, alt: str) -> str:
    """The drawing as part of a page: colours by the style sheet, groups by class, no identifier of its own."""
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    body = re.sub(r"<(metadata|style).*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="variant-(\d+)-\d+"', r'<g class="v\1"', body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", body)  # one page holds many drawings

    def style(text: str) -> str:
        text = re.sub(r"#0501(\d\d)", lambda match: f"var(--v{int(match[1])})", text)
        text = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", text)
        return _replaced(text, _ON_PAGE)

    label = f'role="img" aria-label="{_attribute(alt)}"'
    return f'<svg {box[0]} {label} xmlns="http://www.w3.org/2000/svg">{_restyled(body, style).rstrip()}'


def _restyled(svg: str, change: Callable[[str], str]) -> str:
    """Changes styles and nothing else: a name in the drawing may look like one."""
    return re.sub(r'style="([^"]*)"', lambda match: f'style="{change(match[1])}"', svg)


def _replaced(text: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        text = text.replace(old, new)
    return text


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
