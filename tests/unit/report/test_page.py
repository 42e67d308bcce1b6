"""src/report/page.py: one file, in which texts cannot become markup or scripts."""
import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from src.report.page import packed, write_page
from tests.helpers.reports import contents_of

HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028\u2029", "\udcff", "круг", "\x00", "&lt;", '"\\']


class Page(HTMLParser):
    """The tags of a page, and the text of its title."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.title = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "title":
            self.title += data


def page(tmp_path, title="t", contents=None, **more):
    path = tmp_path / "page.html"
    write_page(str(path), "evaluation.html.j2", title, contents or {}, **more)
    return path


def test_contents_arrive_and_change_no_tag(tmp_path):
    tags = Page(page(tmp_path).read_text()).tags
    path = page(tmp_path, contents={"names": HOSTILE, "<b>": [1, None, True, 0.1]})
    assert contents_of(path) == {"names": HOSTILE, "<b>": [1, None, True, 0.1]}
    assert Page(path.read_text()).tags == tags
    assert not set("\u2028\u2029\x00\udcff") & set(path.read_text())


def test_the_title_is_text(tmp_path):
    tags = Page(page(tmp_path).read_text()).tags
    found = Page(page(tmp_path, title="a </title><script>alert(1)</script> & \udcff").read_text())
    assert found.tags == tags and found.title.strip() == "a </title><script>alert(1)</script> & ?"


def test_nothing_is_loaded_from_anywhere(tmp_path):
    text = page(tmp_path).read_text()
    for tag, attributes in Page(text).tags:
        assert tag != "base" and "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert "default-src 'none'" in text and '<meta charset="utf-8">' in text
    # Only namespaces may have addresses.
    assert text.count("http") - text.count("http-equiv") == text.count("http://www.w3.org/2000/svg")


def test_a_page_that_loads_itself_again(tmp_path):
    def refreshes(path):
        tags = Page(path.read_text()).tags
        return [attributes["content"] for _, attributes in tags if attributes.get("http-equiv") == "refresh"]
    assert refreshes(page(tmp_path)) == [] and refreshes(page(tmp_path, refresh=15)) == ["15"]


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = page(tmp_path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("src.run.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        page(tmp_path, title="other")
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_numbers_are_packed():
    assert base64.b64decode(packed(np.array([1, -2, 300]), np.int16)) == b"\x01\x00\xfe\xff\x2c\x01"
    assert base64.b64decode(packed(np.array([[0.5], [1.0]])[::-1], np.float32)) == b"\x00\x00\x80\x3f\x00\x00\x00\x3f"
