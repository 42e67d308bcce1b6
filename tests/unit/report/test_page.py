"""src/report/page.py: a single file, in which texts cannot become markup or scripts."""
from html.parser import HTMLParser

import numpy as np

from src.report.page import packed, write_page
from tests.helpers.reports import contents_of, unpacked

HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028\u2029", "\udcff", "круг", "\x00", "&lt;", '"\\']


class Tags(HTMLParser):
    """The start tags of a page in `found`."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, attributes))


def page(tmp_path, title="t", contents=None):
    path = tmp_path / "page.html"
    write_page(str(path), "evaluation.html.j2", title, contents or {})
    return path


def test_texts_do_not_change_the_tags(tmp_path):
    """tests/integration/report checks that a browser loads nothing else; the page also forbids it."""
    plain = page(tmp_path).read_text()
    assert "default-src 'none'" in plain
    path = page(tmp_path, "a </title><script>alert(1)</script> & \udcff", {"names": HOSTILE, "<b>": [1, None, True, 0.1]})
    assert contents_of(path) == {"names": HOSTILE, "<b>": [1, None, True, 0.1]}
    assert Tags(path.read_text()).found == Tags(plain).found
    assert not set("\u2028\u2029\x00\udcff") & set(path.read_text())
    assert "<title>a &lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; ?</title>" in path.read_text()


def test_packed_arrays():
    assert packed(np.array([1, -2, 300]), np.int16) == {"type": "Int16Array", "base64": "AQD+/ywB"}
    assert unpacked(packed(np.array([[0.5], [1.0]])[::-1], np.float32)).tolist() == [1, 0.5]
