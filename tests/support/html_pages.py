"""Read an HTML page as a browser does not: every element must be closed, and nothing may come from elsewhere."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """The elements, attributes and texts of a page; an AssertionError if it is not well-formed."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        return "\n".join(text for tag, text in self.texts if tag not in ("style", "script"))

    def check_self_contained(self):
        assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(self.tags)
        for name, value in self.attributes:
            assert not name.startswith("on"), name
            if name in ("src", "href", "srcset", "action", "data"):
                assert str(value).startswith("data:image/png;base64,"), value
        (style,) = [text for tag, text in self.texts if tag == "style"]
        assert not re.search(r"url\(|@import|://", style)
