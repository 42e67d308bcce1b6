"""README.md and README_CN.md agree, and all names and links in them and in docs exist."""
import functools
import re

import pytest
import yaml

from src.config.older import SINGLE_VALUED, UNREAD
from src.config.schema import Config
from tests.helpers.markdown_blocks import (
    DOCS,
    FENCED,
    HEADING,
    README,
    README_CN,
    ROOT,
    anchors,
    code_blocks,
    links,
    prose,
    spans,
    table,
)

PAGES = pytest.mark.parametrize("path", [README, README_CN, *DOCS], ids=lambda path: path.name)
# Characters before a file's name.
FOLDERS = [ROOT, ROOT / "config", ROOT / "config" / "faster_rcnn", ROOT / "docs"]
FILE = re.compile(r"(?:src|tests|tools|config|docs)/\S*|[\w./]+\.(?:py|yml|md)|requirements[\w-]*\.txt")
KEY = re.compile(r"(?!data\.yaml)(?:backbone|rpn_head|bbox_head|data|optimizer|lr|infer)(?:\.\w+)+(?:\.\*)?")
MAX_BYTES = 8700
OLDER_KEYS = {*SINGLE_VALUED, *UNREAD, "data.num_parallel_workers"}  # in the table of the older implementation's keys
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def sections(path):
    """Return the language-independent parts of each section: level, code blocks, inline code, link targets, table numbers."""
    text = path.read_text(encoding="utf-8")
    starts = [match.start() for match in HEADING.finditer(text)]
    result = []
    for start, end in zip(starts, [*starts[1:], None]):
        section = text[start:end]
        plain = FENCED.sub("", section)
        rows = "\n".join(line for line in plain.splitlines() if line.startswith("|"))
        targets = sorted(link for link in links(plain) if not link.startswith("README"))
        result.append((HEADING.match(section)[1], FENCED.findall(section), sorted(spans(plain)), targets,
                       sorted(NUMBER.findall(rows))))
    return result


def test_both_languages_have_the_same_sections_commands_links_and_results():
    english, chinese = sections(README), sections(README_CN)
    assert len(english) > 8
    assert len(english) == len(chinese)
    for one, other in zip(english, chinese):
        assert one == other
    assert "README_CN.md" in links(prose(README)) and "README.md" in links(prose(README_CN))


def test_a_readme_is_short_and_leads_to_every_page():
    for path in (README, README_CN):
        assert path.stat().st_size <= MAX_BYTES, path.name
        assert {f"docs/{page.name}" for page in DOCS} <= set(links(prose(path))), path.name


def test_the_second_shell_block_is_the_test_command():
    """.ci/run runs this block."""
    assert code_blocks(README, "shell")[1].endswith(" && .venv/bin/python -m pytest tests -q -n 2")


def test_the_workflow_runs_the_checks_by_their_script_alone():
    """For pushes and pull requests, with two versions of MindSpore on one version of Python."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    assert set(workflow[True]) == {"push", "pull_request", "workflow_dispatch"}  # YAML reads the key `on` as True
    job = workflow["jobs"]["tests"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    versions = {}
    for entry in job["strategy"]["matrix"]["include"]:
        versions.setdefault(entry["python"], set()).add(entry.get("mindspore"))
    assert {"2.9.0", "2.10.0"} in versions.values()


def test_each_guarantee_names_tests_that_exist():
    """docs/reliability.md names a test file, then its tests."""
    for guarantee, tests in table(ROOT / "docs" / "reliability.md", "guarantee"):
        path, found = None, 0
        for span in spans(tests):
            if span.startswith("tests/"):
                path = ROOT / span
            elif span.startswith("test_"):
                assert f"\ndef {span}(" in path.read_text(), f"{path} has no {span}"
                found += 1
        assert found, guarantee


@PAGES
def test_links_lead_somewhere(path):
    gone = []
    for link in links(prose(path)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not link.startswith("https://") and not (target.exists() and (not anchor or anchor in anchors(target))):
            gone.append(link)
    assert gone == []


@PAGES
def test_the_files_that_are_named_exist(path):
    words = " ".join(spans(prose(path))).split()
    # `..._2x.yml` is short for a name with another beginning.
    gone = [word for word in words if FILE.fullmatch(word) and not any(
        list(folder.glob(re.sub(r"^\.\.\.", "*", word))) for folder in FOLDERS)]
    assert gone == []


def has_key(key):
    """Return whether a dotted name is a setting or, with .* at its end, a group of settings."""
    try:
        functools.reduce(getattr, key.replace(".*", "").split("."), Config())
    except AttributeError:
        return False
    return True


@PAGES
def test_the_keys_that_are_named_exist(path):
    words = {re.split("[=:]", word)[0] for span in spans(prose(path)) for word in span.split()}
    keys = [word for word in words if KEY.fullmatch(word) and not FILE.fullmatch(word)]
    assert [key for key in keys if not has_key(key) and key not in OLDER_KEYS] == []


@pytest.mark.parametrize("page", ["configuration", "devices", "your_own_data"])
def test_the_keys_of_the_tables_exist(page):
    keys = [key for row in table(ROOT / "docs" / f"{page}.md", "key") for key in spans(row[0])]
    assert len(keys) > 3
    assert [key for key in keys if not has_key(key)] == []
