"""Draws a small dataset of made-up eye fundus photographs with their vessel masks.

Real fundus photographs belong to patients, so the demo and the tests need some that belong to nobody. These
are invented, the same for the same seed, and hard enough that a network has something to learn.

    python make_vessels.py OUT [--count 120] [--size 128] [--seed 0]

writes OUT/images/NNN.png (RGB) and OUT/masks/NNN.png (0 or 255).
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4  # vessels are drawn this much larger, so that thin ones get smooth edges


def noise(rng: np.random.Generator, size: int, grain: int) -> np.ndarray:
    """Return smooth noise around 0 whose blobs are about `grain` pixels wide."""
    coarse = rng.normal(size=(max(2, size // grain),) * 2).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


@dataclass
class Pen:
    """Draws vessels into an image; coordinates and widths are parts of its side."""

    rng: np.random.Generator
    image: Image.Image

    def grow(self, x: float, y: float, heading: float, bend: float, width: float) -> None:
        """Draw a vessel that winds on, thins out and branches until it is too thin to see."""
        draw, scale = ImageDraw.Draw(self.image), self.image.width
        to_next_branch = self.rng.uniform(7, 14)
        while width > 0.005 and math.hypot(x - 0.5, y - 0.5) < 0.47:
            heading += bend + self.rng.normal(0, 0.07)
            x, y, before = (
                x + 0.011 * math.cos(heading),
                y + 0.011 * math.sin(heading),
                (x * scale, y * scale),
            )
            draw.line([before, (x * scale, y * scale)], fill=255, width=round(width * scale))
            draw.circle((x * scale, y * scale), width * scale / 2, fill=255)
            width *= 0.988
            bend *= 0.985
            to_next_branch -= 1
            if to_next_branch < 0:
                side = self.rng.choice((-1.0, 1.0))
                turned = heading + side * self.rng.uniform(0.5, 1.0)
                self.grow(x, y, turned, -0.012 * side, width * self.rng.uniform(0.5, 0.75))
                heading -= side * 0.12
                width *= 0.93
                to_next_branch = self.rng.uniform(7, 14)


def vessels(rng: np.random.Generator, size: int, disc: tuple[float, float], side: float) -> Image.Image:
    """Draw a tree, of arteries or of veins: two arcs around the macula and two trunks away from it."""
    pen = Pen(rng, Image.new("L", (size * SUPERSAMPLING,) * 2))
    for up in (-1.0, 1.0):
        for temporal in (True, False):
            tilt = rng.uniform(1.0, 1.35) if temporal else rng.uniform(2.0, 2.6)
            bend = -up * side * (rng.uniform(0.035, 0.05) if temporal else rng.uniform(-0.01, 0.02))
            width = rng.uniform(0.021, 0.027) if temporal else rng.uniform(0.013, 0.018)
            pen.grow(
                disc[0] + rng.normal(0, 0.008),
                disc[1] + up * rng.uniform(0, 0.02),
                up * tilt if side > 0 else math.pi - up * tilt,
                bend,
                width,
            )
    return pen.image.reduce(SUPERSAMPLING)


def fundus(rng: np.random.Generator, size: int) -> tuple[Image.Image, Image.Image]:
    """Draw one photograph and its vessel mask."""
    side = rng.choice((-1.0, 1.0))  # the macula lies to the right of the optic disc, or to its left
    disc = (0.5 - side * rng.uniform(0.22, 0.28), rng.uniform(0.46, 0.54))
    v, u = (np.mgrid[0:size, 0:size] + 0.5) / size

    def spot(center: tuple[float, float], radius: float, softness: float) -> np.ndarray:
        distance = np.hypot(u - center[0], v - center[1]) / radius
        return 1 / (1 + np.exp(np.clip((distance - 1) / softness, -50, 50)))[..., None]

    retina = np.array([205, 98, 42]) * rng.uniform(0.85, 1.08) * rng.normal(1, [0.03, 0.07, 0.12])
    light = 1.08 - 0.9 * np.hypot(u - rng.uniform(0.42, 0.58), v - 0.5) ** 2
    light += 0.035 * noise(rng, size, size // 4) + 0.025 * noise(rng, size, size // 24)
    picture = retina * light[..., None]
    macula = (disc[0] + side * 0.33, disc[1] + 0.02)
    picture *= 1 - spot(macula, 0.075, 0.45) * np.array([0.35, 0.42, 0.3])
    picture += spot(disc, rng.uniform(0.065, 0.08), 0.07) * 0.85 * (np.array([250, 200, 125]) - picture)
    picture += spot(disc, 0.035, 0.15) * 0.6 * (np.array([255, 236, 185]) - picture)

    mask = np.zeros((size, size))
    for passes in ([0.80, 0.55, 0.62], [0.66, 0.38, 0.50]):  # the red, green and blue of arteries, of veins
        depth = np.asarray(vessels(rng, size, disc, side)) / 255
        picture *= 1 - depth[..., None] * (1 - np.array(passes))
        mask = np.maximum(mask, depth)

    aperture = spot((0.5, 0.5), 0.475, 0.008)
    picture = picture * aperture + rng.normal(2, 3, (size, size, 3))
    mask = (mask > 0.4) & (aperture[..., 0] > 0.5)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)), Image.fromarray(np.uint8(255) * mask)


def main() -> None:
    """Write the dataset."""
    parser = argparse.ArgumentParser(description="Make a synthetic dataset of fundus photographs.")
    parser.add_argument("out", type=Path, help="folder to write images/ and masks/ to")
    parser.add_argument("--count", type=int, default=120, help="number of images (default: 120)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (default: 0)")
    args = parser.parse_args()
    for folder in ("images", "masks"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    for number in range(args.count):
        # One generator per image: image 7 is the same whether 10 or 1000 are made.
        picture, mask = fundus(np.random.default_rng([args.seed, number]), args.size)
        picture.save(args.out / "images" / f"{number:03}.png")
        mask.save(args.out / "masks" / f"{number:03}.png")
    print(f"{args.count} images with masks in {args.out}")


if __name__ == "__main__":
    main()
