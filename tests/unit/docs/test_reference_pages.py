"""Settings and architecture: the pages agree with the code. The comments of the YAML files explain every key."""
import re
import runpy
from pathlib import Path

import mindspore
from mindcv.models.resnet import default_cfgs

from src.config.base import setting_names
from src.config.schema import Config
from src.config.transforms import TRANSFORMS
from src.convert.downloads import SOURCES
from src.run.environment import VERSIONS, version_differences
from tests.helpers.markdown import DOCS, README, README_CN, links, spans, table
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "settings.md"


def test_the_settings_are_up_to_date_and_have_every_key(capsys):
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    keys = [spans(row[0])[0] for row in rows]
    transforms = [name for kind in TRANSFORMS for name in (kind, *(f"{kind}.{key}" for key in TRANSFORMS[kind].model_fields))]
    assert keys == list(dict.fromkeys(keys)) and set(keys) == {*setting_names(Config), *transforms}
    assert all(len(row) == 5 and row[1] and len(row[4]) > 8 for row in rows)
    runpy.run_path(str(ROOT / "tools" / "settings_reference.py"), run_name="__main__")
    assert capsys.readouterr().out == text, "run: python tools/settings_reference.py > docs/settings.md"


def test_comments_explain_every_key_of_the_yaml_files():
    keys = [match for path in (ROOT / "config").rglob("*.yml")
            for match in re.findall(r"^ *(?:- )?(\w+): *([^#\n]*)(#?)", path.read_text(), re.MULTILINE)]
    explained = {key for key, _, comment in keys if comment} | {"NormalizeImage", "__BASE__"}  # comments on the line above
    assert len(explained) > 60 and {key for key, value, _ in keys if value} - explained == set()


def test_the_architecture_names_files_that_exist_and_what_they_define():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files, defined = set(re.findall(r"[\w/]+\.py", text)), re.findall(r"`(\w+)` in `(\S+?)`", text)
    assert len(files) > 30 and [name for name in files if not (ROOT / name).is_file()] == []
    assert len(defined) > 15
    for name, path in defined:
        assert re.search(rf"^(class|def) {name}\b", (ROOT / path).read_text(), re.MULTILINE), (name, path)


def test_one_table_has_the_url_the_config_and_the_use_of_every_weight_file():
    """The other pages link to it. The names of torchvision's files contain the first digits of their SHA-256."""
    rows = [(links(file), links(config), spans(use)) for _, file, config, use in table(ROOT / "docs" / "model_zoo.md", "weights")]
    urls = {url: uses for (url,), _, uses in rows}
    assert {urls[url][0]: url for url in list(urls)[:3]} == {name: url for name, (url, _) in SOURCES.items()}
    backbones = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    assert list(urls)[3:8] == [default_cfgs[name]["url"] for name in backbones]
    for name, url in zip(backbones, list(urls)[8:]):
        assert re.fullmatch(rf"https://download\.pytorch\.org/models/{name}-[0-9a-f]{{8}}\.pth", url)
    assert len(urls) == len(rows) == 13 and all(configs for _, configs, _ in rows)
    for path in {README, README_CN, *DOCS}:
        found = re.findall(r"https://[^\s)]+\.(?:pth|ckpt)", path.read_text(encoding="utf-8"))
        assert found == (list(urls) if path.name == "model_zoo.md" else []), path.name


def test_one_table_has_the_differences_between_versions_of_mindspore():
    """The wheel that is installed contains a list of CANN's versions, and oneDNN."""
    for page in ("devices.md", "devices_CN.md"):
        rows = table(ROOT / "docs" / page, "MindSpore")
        assert {row[0]: (re.findall(r"[\d.]+", row[1]), int(row[2])) for row in rows} == {
            version: (re.findall(r"[\d.]+", cann), onednn) for version, (cann, onednn) in VERSIONS.items()}
        tested = [re.match(r"[\d.]+\d", row[4])[0] for row in rows]
        assert tested == re.findall(r'mindspore: "(.*)"', (ROOT / ".github/workflows/tests.yml").read_text())
    cann, onednn = version_differences(mindspore.__version__)
    package = Path(mindspore.__file__).parent
    [own] = re.findall(r"def __init__\(self, library_path\):\n.*\n +self.version = (.*)",
                       (package / "run_check" / "_check_version.py").read_text())
    assert [version for version in re.findall(r"[\d.]+", own) if version >= "8"] == re.findall(r"[\d.]+", cann)
    assert (package / "lib" / f"libdnnl.so.{onednn}").exists()
    assert version_differences("2.11.0") == version_differences("2.10.0rc1") != version_differences("2.9.1")
