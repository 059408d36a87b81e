"""Reads reports as a browser does, and notes what is wrong with them."""

import itertools
from html.parser import HTMLParser

# the beginnings of a PNG and of an SVG
PICTURES = ("data:image/png;base64,iVBOR", "data:image/svg+xml;base64,PD94")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Reads HTML, and notes what is wrong with it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.ids, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.seen.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


def check_page(text):
    """What every report must be: whole, offline, without scripts, and fit for screen readers."""
    read = Reader(text)
    assert text.startswith("<!DOCTYPE html>")
    assert "http:" not in text
    assert "https:" not in text
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in read.seen}
    assert not [a for _, a in read.seen if any(name.startswith("on") for name in a)]
    assert read.all("html")[0]["lang"] == "en"
    assert len(read.ids) == len(set(read.ids))
    for picture in read.all("img"):
        assert picture["src"].startswith(PICTURES)
        assert picture["alt"]
    levels = [int(tag[1]) for tag, _ in read.seen if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(read.all("caption")) == len(read.all("table"))
    assert all(cell.get("scope") in ("row", "col") for cell in read.all("th"))
    return read
