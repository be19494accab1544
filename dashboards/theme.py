"""Colours: one palette for each of the two themes.

Rule: a colour of the palette has a contrast of at least 3 to 1 with its background (WCAG 2.2, 1.4.11), and neighbours
in it stay apart for people with protanopia, deuteranopia and tritanopia; the tests measure both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one theme; `series` is the order in which charts take them."""

    background: str
    surface: str
    text: str
    muted: str
    border: str
    accent: str
    series: tuple[str, ...]


# Derived from Okabe and Ito's palette ("Color Universal Design", 2008): the same hues, darkened on white and lightened
# on near-black until each stands out from its background.
LIGHT = Theme(
    background="#ffffff",
    surface="#f5f6f8",
    text="#1b2330",
    muted="#5a6577",
    border="#dde1e7",
    accent="#0b63a5",
    series=("#0b63a5", "#c96a00", "#8a3f7c", "#1a8f6f", "#7d8590", "#a3324a", "#4c9bd0", "#8c7a00"),
)
DARK = Theme(
    background="#12161d",
    surface="#1b212b",
    text="#e6eaf0",
    muted="#9aa5b5",
    border="#2e3744",
    accent="#5ab0e8",
    series=("#5ab0e8", "#e8a23a", "#d48fc4", "#2ea67f", "#8f99a8", "#ef7d8f", "#2f78b7", "#d6c84e"),
)


def named(name: str | None) -> Theme:
    """The theme of this name, which Streamlit tells of the browser; light where it does not know yet."""
    return DARK if name == "dark" else LIGHT


def options() -> dict[str, object]:
    """Streamlit's options for both themes; the browser's preference chooses between them."""
    shared = {
        "theme.baseRadius": "6px",
        "theme.baseFontSize": 15,
        "theme.headingFontSizes": ["1.5rem", "1.15rem", "1rem", "0.95rem", "0.9rem", "0.85rem"],
        "theme.headingFontWeights": [600, 600, 600, 600, 600, 600],
        "theme.showWidgetBorder": True,
    }
    return {**shared, **_named("light", LIGHT), **_named("dark", DARK)}


def _named(name: str, theme: Theme) -> dict[str, object]:
    colours = {
        "primaryColor": theme.accent,
        "backgroundColor": theme.background,
        "secondaryBackgroundColor": theme.surface,
        "textColor": theme.text,
        "borderColor": theme.border,
        "linkColor": theme.accent,
        "chartCategoricalColors": list(theme.series),
    }
    return {f"theme.{name}.{option}": value for option, value in colours.items()}
