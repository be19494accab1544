"""Colours: they stand out from their background, and from each other for people who see fewer of them."""

from __future__ import annotations

from itertools import combinations

import pytest

from dashboards.theme import DARK, LIGHT, Theme, named

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1.0; for linear RGB.
BLINDNESS = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
# So many series are the most that a chart of ours has by name: directions, and the well-known protocols.
TOGETHER = 4
Colour = tuple[float, float, float]


def linear(colour: str) -> Colour:
    """sRGB to linear RGB (IEC 61966-2-1)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    lights = [
        sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear(each), strict=True)) for each in (one, other)
    ]
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def lab(colour: Colour) -> Colour:
    """Linear RGB to CIELAB with the white of D65."""
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    scaled = [sum(w * max(part, 0) for w, part in zip(row, colour, strict=True)) / white
              for row, white in zip(rows, (0.9505, 1.0, 1.089), strict=True)]  # fmt: skip
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in scaled)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def seen(colour: str, blindness: str) -> Colour:
    """What is left of a colour."""
    before = linear(colour)
    red, green, blue = (sum(w * part for w, part in zip(row, before, strict=True)) for row in BLINDNESS[blindness])
    return red, green, blue


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_from_the_background(theme: Theme) -> None:
    """Marks 3 to 1, text 4.5 to 1, on the page and on the sidebar."""
    for ground in (theme.background, theme.surface):
        assert contrast(theme.text, ground) >= 4.5
        assert contrast(theme.muted, ground) >= 4.5
        assert contrast(theme.accent, ground) >= 3
    for colour in theme.series:
        assert contrast(colour, theme.background) >= 3, colour


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_series_stay_apart_for_the_colour_blind(theme: Theme, blindness: str) -> None:
    """Any two of the colours that stand together differ by ten units of CIELAB."""
    for one, other in combinations(theme.series[:TOGETHER], 2):
        pair = (lab(seen(each, blindness)) for each in (one, other))
        distance = sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) ** 0.5
        assert distance >= 10, (one, other, round(distance, 1))


def test_unknown_theme_is_the_light_one() -> None:
    """Before the browser has told which theme it shows, nothing fails."""
    assert named(None) is LIGHT
    assert named("dark") is DARK
