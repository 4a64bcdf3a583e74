"""Small multiples of curves, as SVG: one panel for each quantity, all over the same axis."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, COLUMNS = 240, 110, 3  # of a panel
LEFT, TOP, BOTTOM = 8, 22, 18  # in a panel, around its curve


def plot(samples: Sequence[Mapping[str, float]], over: str, quantities: Sequence[str]) -> str:
    """Return the picture: each of the `quantities` of the samples over one of them. Every panel begins at zero."""
    rows = -(-len(quantities) // COLUMNS)
    panels = [
        f'<g transform="translate({index % COLUMNS * WIDTH},{index // COLUMNS * HEIGHT})">'
        f"{_panel([(each[over], each[quantity]) for each in samples], quantity, over)}</g>"
        for index, quantity in enumerate(quantities)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}" '
        f'font-family="sans-serif" font-size="10">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(points: Sequence[tuple[float, float]], title: str, over: str) -> str:
    first, last = points[0][0], points[-1][0]
    highest = max(value for _, value in points) or 1.0
    wide, high = WIDTH - 2 * LEFT, HEIGHT - TOP - BOTTOM

    def place(x: float, value: float) -> str:
        share = (x - first) / (last - first) if last > first else 0.0
        return f"{LEFT + wide * share:.1f},{TOP + high * (1 - value / highest / 1.1):.1f}"

    ends = f"{over} {first:,.0f} to {last:,.0f}; {points[0][1]:,.1f}, at the end {points[-1][1]:,.1f}"
    return (
        f'<text x="{LEFT}" y="14" font-weight="bold">{escape(title)}</text>'
        f'<line x1="{LEFT}" y1="{TOP + high}" x2="{LEFT + wide}" y2="{TOP + high}" stroke="#999"/>'
        f'<polyline fill="none" stroke="#0a6" points="{" ".join(place(*point) for point in points)}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 5}" fill="#666" font-size="8">{escape(ends)}</text>'
    )
