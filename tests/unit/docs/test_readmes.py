"""README.md and README_CN.md say the same, and what they and docs/your_own_data.md name is there."""
import re

import pytest

from src.config.command_line import EVAL_FLAGS, EXPORT_FLAGS, INFER_FLAGS, TRAIN_FLAGS
from src.config.messages import setting_names
from src.config.schema import Config
from tests.helpers.markdown_blocks import (
    CHINESE,
    FENCE,
    OWN_DATA,
    README,
    README_CN,
    ROOT,
    anchor,
    blocks,
    code_blocks,
    facts,
    prose_links,
    prose_spans,
    read_sections,
    spans,
)

FILES = pytest.mark.parametrize("path", [README, README_CN, OWN_DATA], ids=lambda path: path.name)
# Where a file's name may start.
FOLDERS = [ROOT, ROOT / "config", ROOT / "config" / "faster_rcnn", ROOT / "tests", ROOT / "tests" / "end_to_end", ROOT / "tools",
           ROOT / "src" / "models"]
NAMES_A_FILE = re.compile(r"(?:src|tests|tools|config|docs)/.*|[\w./*]+\.(?:py|yml|md)|requirements[\w-]*\.txt")
NAMES_A_KEY = re.compile(r"[a-z]\w*(?:\.\w+)+")
KEYS = setting_names(Config)
FLAGS = {**TRAIN_FLAGS, **EVAL_FLAGS, **INFER_FLAGS, **EXPORT_FLAGS}


def without_language_line(path, line):
    """The sections of a README, less the line that links to the other language, which must come first."""
    sections = read_sections(path)
    assert sections[0].blocks[0].items == [line]
    del sections[0].blocks[0]
    return sections


@pytest.fixture(scope="module")
def both():
    """The sections of the English file, and those of the Chinese one."""
    return (without_language_line(README, "English | [简体中文](README_CN.md)"),
            without_language_line(README_CN, "[English](README.md) | 简体中文"))


def test_the_headings_agree(both):
    english, chinese = both
    assert [section.level for section in english] == [section.level for section in chinese]
    for one, other in zip(english, chinese):
        names = set(re.findall(r"[A-Za-z][\w-]*", other.title))
        assert names <= set(re.findall(r"[A-Za-z][\w-]*", one.title)), (one.title, other.title)


def test_each_section_has_the_same_blocks(both):
    for one, other in zip(*both):
        shapes = [[(block.kind, len(block.items)) for block in section.blocks] for section in (one, other)]
        assert shapes[0] == shapes[1], (one.title, other.title)


def test_the_code_blocks_agree_letter_for_letter():
    codes = [[block for block in blocks(path) if block.kind.startswith(FENCE)] for path in (README, README_CN)]
    assert len(codes[0]) > 10
    assert codes[0] == codes[1]


def test_each_paragraph_row_and_item_has_the_same_code_links_and_numbers(both):
    english, chinese = both
    compared = 0
    for one, other in zip(english, chinese):
        for block, counterpart in zip(one.blocks, other.blocks):
            for text, translation in zip(block.items, counterpart.items):
                assert facts(text, english) == facts(translation, chinese), f"{one.title}: {text}\n{other.title}: {translation}"
                compared += 1
    assert compared > 100


def test_each_file_keeps_to_its_language(both):
    english, chinese = both
    assert not [item for section in english for block in section.blocks for item in block.items if CHINESE.search(item)]
    prose = [item for section in chinese for block in section.blocks if block.kind in ("paragraph", "list")
             for item in block.items if not item.startswith("<img")]
    assert [item for item in prose if not CHINESE.search(item)] == []


@FILES
def test_links_lead_somewhere(path):
    anchors = {f"#{anchor(section.title)}" for section in read_sections(path)}
    relative = [link for link in prose_links(path) if not link.startswith("https://")]
    assert relative or path == OWN_DATA
    gone = [link for link in relative
            if (link not in anchors if link.startswith("#") else not (path.parent / link.partition("#")[0]).exists())]
    assert gone == []


def named_files(path):
    """What in a file's inline code and commands looks like a file of the project."""
    words = " ".join([*prose_spans(path), *code_blocks(path, "shell")]).split()
    return sorted({word for word in words if NAMES_A_FILE.fullmatch(word)})


@FILES
def test_the_files_that_are_named_exist(path):
    names = named_files(path)
    assert len(names) > 8
    # `..._2x.yml` stands for a name with another beginning.
    gone = [name for name in names
            if not any(list(folder.glob("*" + name[3:] if name.startswith("...") else name)) for folder in FOLDERS)]
    assert gone == []


@FILES
def test_the_flags_that_are_named_exist(path):
    known = {f"--{name.rpartition('.')[2]}" for key, aliases in FLAGS.items() for name in (key, *aliases)}
    known |= {"--config", "--help", "--hostfile"}
    tools = "".join(tool.read_text(encoding="utf-8") for tool in (ROOT / "tools").glob("*.py"))
    named = {word for span in prose_spans(path) for word in span.split() if word.startswith("--")}
    assert len(named) > 4
    assert [flag for flag in named if flag not in known and f'"{flag}"' not in tools] == []


@FILES
def test_the_keys_that_are_named_exist(path):
    groups = {name.split(".")[0] for name in KEYS if "." in name}
    words = {word.partition("=")[0].rstrip(":") for span in prose_spans(path) for word in span.split()}
    keys = [word for word in words if NAMES_A_KEY.fullmatch(word) and word.split(".")[0] in groups
            and not NAMES_A_FILE.fullmatch(word)]
    assert len(keys) > 6
    assert [key for key in keys if key not in KEYS] == []


@pytest.mark.parametrize(("path", "yes"), [(README, "yes"), (README_CN, "有")], ids=["README.md", "README_CN.md"])
def test_the_table_of_keys_tells_which_have_a_flag(path, yes):
    [rows] = [block.items[2:] for block in blocks(path) if block.kind == "table" and "`device_target`" in block.items[2]]
    flags = {key.rpartition(".")[2] for key in FLAGS}
    known = {name.rpartition(".")[2] for name in KEYS}
    for row in rows:
        first, flag, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        keys = spans(first)
        if keys[0].endswith(".*"):
            assert all(key[:-2] in KEYS for key in keys), row
            continue
        assert all(key in KEYS if "." in key else key in known for key in keys), row
        told = keys if flag == yes else [name.strip() for name in flag.split(",") if name]
        assert told == [key for key in keys if key in flags], row


def test_the_second_shell_block_is_the_test_command():
    """.ci/run runs it."""
    for path in (README, README_CN):
        assert code_blocks(path, "shell")[1].endswith(" && .venv/bin/python -m pytest tests -q -n 2")
