"""Draws the results."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmark.results import INSIDE, LIMIT, MEMORY, OURS, PLAIN, Results

COLORS = {
    OURS: "#0b6e4f",
    "gocryptfs": "#c8553d",
    "rclone crypt": "#e9a23b",
    LIMIT: "#9aa5b1",
    INSIDE: "#1b3a4b",
    MEMORY: "#b8a9c9",
}
EXTRA = "#5fb49c"


def draw(results: Results, path: Path) -> None:
    """Draw each row's rates as bars, as ratios to the plain folder, on a logarithmic scale."""
    zoom, width, left, right, bar = 2, 1000, 250, 130, 15
    names = [name for name in results.contenders if name != PLAIN]
    font = ImageFont.load_default(size=13 * zoom)
    head = ImageFont.load_default(size=17 * zoom)
    block = len(names) * bar + 18
    height = 96 + len(results.rows) * block + 40
    picture = Image.new("RGB", (width * zoom, height * zoom), "white")
    pen = ImageDraw.Draw(picture)

    def text(x: float, y: float, words: str, **options: Any) -> None:
        pen.text((x * zoom, y * zoom), words, **({"fill": "#222", "font": font} | options))

    ratios = {
        (row.key, name): ratio
        for row in results.rows
        for name in names
        if (ratio := results.ratio(row.key, name, PLAIN)) is not None
    }
    lowest = 10.0 ** -next(power for power in range(1, 9) if 10.0**-power <= min(ratios.values()))
    top = max(1.0, *ratios.values())

    def place(ratio: float) -> float:
        span = width - left - right
        return left + span * math.log(ratio / lowest) / math.log(top / lowest)

    text(16, 14, "Reading through encryption, relative to the plain folder", font=head)
    x = 16.0
    for name in names:
        color = COLORS.get(name, EXTRA)
        pen.rectangle((x * zoom, 48 * zoom, (x + 12) * zoom, 60 * zoom), fill=color)
        text(x + 18, 46, name)
        x += 40 + pen.textlength(name, font=font) / zoom
    bottom = height - 40
    mark = lowest
    while mark <= 1.0001:
        at = place(mark) * zoom
        pen.line((at, 80 * zoom, at, bottom * zoom), fill="#bbb" if mark > 0.99 else "#e4e4e4", width=zoom)
        text(place(mark), bottom + 6, f"{mark:g}", anchor="ma", fill="#666")
        mark *= 10
    y = 84.0
    for row in results.rows:
        text(left - 12, y + len(names) * bar / 2, row.title, anchor="rm")
        for name in names:
            ratio = ratios.get((row.key, name))
            if ratio is not None:
                end_x = max(place(ratio), left + 1)
                box_ = (left * zoom, y * zoom, end_x * zoom, (y + bar - 3) * zoom)
                pen.rectangle(box_, fill=COLORS.get(name, EXTRA))
                rate = statistics.median(results.rates[row.key][name]) / row.scale
                text(end_x + 6, y + (bar - 3) / 2, f"{rate:.3g} {row.unit}", anchor="lm", fill="#444")
            y += bar
        y += 18
    path.parent.mkdir(exist_ok=True)
    picture.save(path, optimize=True)
