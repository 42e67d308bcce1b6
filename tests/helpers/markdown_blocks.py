"""Markdown files as sections of blocks, and what in them does not depend on the language."""
import re
from collections import Counter
from typing import NamedTuple

from tests.helpers.paths import ROOT

README, README_CN, OWN_DATA = ROOT / "README.md", ROOT / "README_CN.md", ROOT / "docs" / "your_own_data.md"
FENCE = "```"
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|width)=\"([^\"]*)\"")
TAG = re.compile(r"<[a-z][^>]*>")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


class Block(NamedTuple):
    """kind: paragraph, table, list, or the opening line of a code block; items: rows, list items, or the whole text."""
    kind: str
    items: list


class Section(NamedTuple):
    """A heading's level (number of #) and title, and the blocks up to the next heading."""
    level: int
    title: str
    blocks: list


def read_sections(path):
    """The sections of a Markdown file, a list. Raises AssertionError for text before the first heading, or an open fence."""
    sections, lines, fence = [], [], ""

    def end_block():
        if lines:
            sections[-1].blocks.append(_block(lines))
            lines.clear()

    for line in path.read_text(encoding="utf-8").splitlines():
        if fence:
            if line == FENCE:
                sections[-1].blocks.append(Block(fence, ["\n".join(lines)]))
                lines.clear()
                fence = ""
            else:
                lines.append(line)
        elif line.startswith("#"):
            end_block()
            marks, title = line.split(" ", 1)
            sections.append(Section(len(marks), title.strip(), []))
        elif line.startswith(FENCE) or not line.strip():
            end_block()
            fence = line.strip()
        else:
            assert sections, f"{path.name}: text before the first heading"
            lines.append(line)
    assert not fence, f"{path.name}: a code block without its end"
    end_block()
    return sections


def _block(lines):
    if lines[0].startswith("|"):
        return Block("table", list(lines))
    text = "\n".join(lines)
    if text.startswith("- "):
        return Block("list", text[2:].split("\n- "))
    return Block("paragraph", [text])


def blocks(path):
    """All blocks of a Markdown file, in order."""
    return [block for section in read_sections(path) for block in section.blocks]


def code_blocks(path, language):
    """The text of the code blocks of one language, in order."""
    return [block.items[0] for block in blocks(path) if block.kind == FENCE + language]


def spans(text):
    """The inline code of a text, in order, with single spaces."""
    return [" ".join(span.split()) for span in SPAN.findall(text)]


def links(text):
    """The targets of links and images in a text, in order, and the widths of images."""
    return [target or attribute for target, attribute in LINK.findall(SPAN.sub("`", text))]


def prose_spans(path):
    """All inline code of a Markdown file."""
    return [span for block in blocks(path) if not block.kind.startswith(FENCE) for item in block.items for span in spans(item)]


def prose_links(path):
    """All link targets of a Markdown file."""
    return [link for block in blocks(path) if not block.kind.startswith(FENCE) for item in block.items for link in links(item)
            if not link.isdigit()]


def facts(text, sections):
    """What a translation must leave as it is in a paragraph, table row or list item, a dict; anchors of `sections`, the file's
    own, are told as the number of the section."""
    numbers = NUMBER.findall(TAG.sub("", LINK.sub("", SPAN.sub("", text))))
    anchors = {f"#{anchor(section.title)}": f"section {number}" for number, section in enumerate(sections)}
    return {"code": Counter(spans(text)), "links": Counter(anchors.get(link, link) for link in links(text)),
            "numbers": Counter(numbers), "bold": text.count("**"), "bars": SPAN.sub("", text).count("|")}


def anchor(title):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
