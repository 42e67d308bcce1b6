"""src/report/page.py: a single file, in which texts cannot become markup or scripts."""
from html.parser import HTMLParser

import numpy as np
import pytest

from src.report.page import packed, write_page
from tests.helpers.reports import contents_of, unpacked

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


def test_texts_do_not_change_the_tags(tmp_path):
    tags = Page(page(tmp_path).read_text()).tags
    path = page(tmp_path, contents={"names": HOSTILE, "<b>": [1, None, True, 0.1]})
    assert contents_of(path) == {"names": HOSTILE, "<b>": [1, None, True, 0.1]}
    assert Page(path.read_text()).tags == tags
    assert not set("\u2028\u2029\x00\udcff") & set(path.read_text())
    found = Page(page(tmp_path, title="a </title><script>alert(1)</script> & \udcff").read_text())
    assert found.tags == tags and found.title.strip() == "a </title><script>alert(1)</script> & ?"


@pytest.mark.parametrize("comparison", [False, True])
def test_page_loads_nothing(tmp_path, comparison):
    text = page(tmp_path, comparison=comparison).read_text()
    for tag, attributes in Page(text).tags:
        assert tag != "base" and "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert "default-src 'none'" in text and '<meta charset="utf-8">' in text
    # Only namespaces may have addresses.
    assert text.count("http") - text.count("http-equiv") == text.count("http://www.w3.org/2000/svg")



def test_packed_arrays():
    assert packed(np.array([1, -2, 300]), np.int16) == {"type": "Int16Array", "base64": "AQD+/ywB"}
    assert unpacked(packed(np.array([[0.5], [1.0]])[::-1], np.float32)).tolist() == [1, 0.5]
