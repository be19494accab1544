"""Small pieces of HTML whose every text is escaped: the one place where the dashboard makes HTML at all.

Rule: what came out of a log, a URL or a cluster is text. A string is escaped when it is put into an element; only
elements made here are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

import streamlit as st

from analytics.values import harmless

# Characters of the longest figure: a count of millions.
_FIGURE = 10
_STYLE = Path(__file__).with_name("style.css")


class Element(str):
    """HTML that was made by `tag`."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Element:
    """An element; `css` is its class, other attributes go by their own names with `_` for `-`."""
    named = {{"css": "class"}.get(key, key.replace("_", "-")): value for key, value in attributes.items()}
    given = "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    return Element(f"<{name}{given}>{''.join(map(_content, children))}</{name}>")


def joined(elements: Iterable[Element]) -> Element:
    """Elements one after the other."""
    return Element("".join(elements))


def _content(child: str) -> str:
    return child if isinstance(child, Element) else escape(harmless(child))


def show(element: Element) -> None:
    """Put an element on the page."""
    st.html(element)


def notice(title: str, *sentences: str, kind: str = "info", command: str = "") -> None:
    """A box that says what is the matter and what to do: `kind` is info, empty, warning or error."""
    lines = [tag("p", sentence) for sentence in sentences if sentence]
    code = [tag("pre", command)] if command else []
    role = "alert" if kind == "error" else "status"
    show(tag("div", tag("strong", title), *lines, *code, css=f"dl-notice dl-{kind}", role=role))


def heading(title: str, note: str = "") -> None:
    """The heading of a part of a page, with a remark beside it."""
    show(tag("div", tag("h2", title), *([tag("span", note)] if note else []), css="dl-heading"))


def tiles(figures: Iterable[tuple[str, str, str]]) -> None:
    """Figures side by side: label, value, and a remark below it."""
    boxes = (
        tag(
            "div",
            tag("span", label, css="dl-label"),
            tag("span", value, css=_value_class(value)),
            tag("span", remark, css="dl-remark"),
        )
        for label, value, remark in figures
    )
    show(tag("div", joined(boxes), css="dl-tiles"))


def _value_class(value: str) -> str:
    """Figures are large; words and times are smaller, so that they fit."""
    return "dl-value" if len(value) <= _FIGURE else "dl-value dl-words"


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values in columns, as wide as the page allows."""
    rows = (tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs)
    show(tag("dl", joined(rows), css="dl-facts"))


def literal(text: str) -> None:
    """A line of a log or a file, exactly as it is but for characters that act."""
    show(tag("pre", text, css="dl-literal"))


def style() -> None:
    """The page's style sheet."""
    st.html(_STYLE)
