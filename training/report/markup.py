"""Build HTML as a tree of elements: texts and attributes are escaped when it is written."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy

from training.files.printable import printable

Content = Element | str | float | None


def element(tag: str, *content: Content | Iterable[Content], **attributes: object) -> Element:
    """Return an element with texts and elements in it; None is left out.

    Args:
        tag: its name.
        content: in this order; lists of it are taken apart. Control characters in texts are shown escaped.
        attributes: ``_`` in a name stands for ``-``, and one at its end is left out, as in ``class_``; None for no such
            attribute.
    """
    node = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            node.set(name.rstrip("_").replace("_", "-"), printable(str(value)))
    for item in content:
        for each in [item] if item is None or isinstance(item, (Element, str, float, int)) else item:
            _append(node, each)
    return node


def _append(node: Element, content: Content) -> None:
    if content is None:
        return
    if isinstance(content, Element):
        node.append(content)
        return
    text = printable(str(content))
    if len(node):
        node[-1].tail = (node[-1].tail or "") + text
    else:
        node.text = (node.text or "") + text


def table(head: Sequence[Content], rows: Iterable[Sequence[Content]], words: int = 1) -> Element:
    """Return a table that scrolls sideways: the first ``words`` columns are texts, the rest numbers."""

    def row(tag: str, cells: Sequence[Content]) -> Element:
        classes = [None if place < words else "number" for place in range(len(cells))]
        return element("tr", [element(tag, cell, class_=kind) for cell, kind in zip(cells, classes, strict=True)])

    body = element("tbody", [row("td", cells) for cells in rows])
    return scrolled(element("table", element("thead", row("th", head)), body))


def scrolled(content: Element) -> Element:
    """Return a box that scrolls sideways where its content is wider than the page; the keyboard reaches it."""
    return element("div", content, class_="scroll", tabindex=0)


def picture(pixels: numpy.ndarray, text: str, **attributes: object) -> Element:
    """Return an image with the pixels in it: uint8 (H, W), (H, W, 3) or (H, W, 4)."""
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(numpy.ascontiguousarray(pixels)).save(written, format="PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
    height, width = pixels.shape[:2]
    return element("img", src=source, alt=text, width=width, height=height, **attributes)


def document(title: str, style: str, body: Iterable[Element]) -> str:
    """Return a whole page as text. Its policy forbids scripts and every request."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
    )
    SubElement(head, "style").text = style  # HTML does not escape in a style: it is ours alone
    page = element("html", head, element("body", element("main", body)), lang="en")
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
