"""The project's Markdown pages: their code blocks, headings, links and inline code."""
import re

from tests.helpers.paths import ROOT

README, README_CN = ROOT / "README.md", ROOT / "README_CN.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"^```(\w*)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]*)\"")
SPAN = re.compile(r"`([^`]+)`")


def code_blocks(path, language):
    """Return the texts of the code blocks in a language, in order."""
    return [text for kind, text in FENCED.findall(path.read_text(encoding="utf-8")) if kind == language]


def prose(path):
    """Return a page without its code blocks."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def spans(text):
    """Return the inline code of a text, in order, with single spaces."""
    return [" ".join(span.split()) for span in SPAN.findall(text)]


def links(text):
    """Return the targets of the links and images of a text, in order."""
    return [target or image for target, image in LINK.findall(text)]


def anchors(path):
    """Return the anchors (after #) that GitHub creates for the headings of a page."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in HEADING.findall(prose(path))}


def table(path, first_cell):
    """Return the rows of the table whose first header cell is given, each a list of its cells."""
    text = prose(path)
    lines = text[text.index(f"| {first_cell} |"):].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
