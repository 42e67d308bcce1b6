"""The project's Markdown pages: their headings, links, inline code, tables and shell commands."""
import re

from tests.helpers.paths import ROOT

README, README_CN = ROOT / "README.md", ROOT / "README_CN.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
FENCED = re.compile(r"^```(\w*)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
# Parts of commands that run no program of the project. .ci/run runs the test commands.
SET_UP = ["python3 -m venv .venv", ".venv/bin/pip install -q -r requirements.txt -c constraints.txt",
          ".venv/bin/pip install -q -r requirements-dev.txt -c constraints.txt", ".venv/bin/python -m pytest tests -q -n 2"]
# Lines that download, unpack or install something.
NO_PROGRAM = re.compile(r"(git clone|curl|tar|pip install) .*")
# Arguments in the README of commands that need more hardware than a machine with a CPU.
MARKS = ("--device_target Ascend", "--device_target GPU", "--hostfile", "torchvision:fasterrcnn_resnet50_fpn")


def prose(path):
    """Return a page without its code blocks."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def spans(text):
    """Return the inline code of a text, in order, with single spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def links(text):
    """Return the targets of the links and images of a text, in order."""
    return [target or image for target, image in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]*)\"", text)]


def anchors(path):
    """Return the anchors (after #) that GitHub creates for the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(path, first_cell):
    """Return the rows of the table whose first header cell is given, each a list of its cells."""
    text = prose(path)
    lines = text[text.index(f"| {first_cell} |"):].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(pages=(README, *DOCS)):
    """Return each line of the pages' shell blocks once, split at &&, without SET_UP and NO_PROGRAM."""
    parts = [part for path in pages for kind, block in FENCED.findall(path.read_text(encoding="utf-8")) if kind == "shell"
             for line in block.splitlines() for part in line.split(" && ")]
    return [part for part in dict.fromkeys(parts) if part not in SET_UP and not NO_PROGRAM.fullmatch(part)]


def marks_of(command):
    return [mark for mark in MARKS if f" {mark} " in f"{command} "]
