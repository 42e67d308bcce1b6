"""Bad configuration files and flags: the YAML or the words, and the decisive part of the error message."""
import pytest

from src.config import load_config
from src.config.command_line import parse_train_args
from tests.helpers.sentences import assert_says, refusal

QUOTED = "text (in quotes if YAML reads it as something else), not "
NOT_PLAIN = "text without line ends and other characters that cannot be shown, not "
MAPPING = "must be a mapping of 'key: value' lines, not "
# The YAML of a file, and a part of the error message in addition to the file's name.
YAML = [
    # Files that are no configuration
    ("data: !!python/object/apply:os.mkdir [PROOF]", "invalid YAML: line 1, column 7: could not determine"),
    ("!!set {seed}", MAPPING + "{'seed'}"),
    ("lr:\n\twarmup_step: 2", "invalid YAML: line 2, column 1: found character"),
    ("seed: 1\n---\nseed: 2", "invalid YAML: line 2"),
    ("seed: 1".encode("utf-16-le"), "invalid YAML"),
    ("seed: !!bool x", "invalid YAML: KeyError"),
    ("{a: 1}: 2", "invalid YAML: line 1"),
    ("#" * 2**20, "more than 262144 bytes are too many for a configuration file"),
    ("x" * 100_000 + "y: 1", "invalid YAML"),
    ("- seed: 1\n- epochs: 2", MAPPING),
    ("# only a comment", MAPPING + "None"),
    ("__BASE__: 7", "__BASE__ must be a file name or a list of file names, not 7"),
    ("__BASE__: .", ["which __BASE__ of", "cannot be read: Is a directory; check the path"]),
    # Keys
    ("epoch: 3", "unknown key 'epoch'; did you mean 'epochs'?"),
    ("target_size: [3, 3]", "unknown key 'target_size'; did you mean 'data.target_size'?"),
    ("data: {optimizer: {type: sgd}}", "unknown key 'data.optimizer'; did you mean 'optimizer'?"),
    ("rpn_head: {anchor_generator: {stride: [4]}}", "did you mean 'rpn_head.anchor_generator.strides'?"),
    ("infer: {zzz: 3}", "unknown key 'infer.zzz'; valid names here are conf_threshold, nms_threshold, max_box_num"),
    ('"a\\nb": 1', r"unknown key 'a\nb'; valid names here are net, "),
    ("data: &d {data: *d}", "unknown key 'data.data'"),
    ("3: 4", "unknown key '3'; valid names here are net, "),
    ("x" * 1000 + ": 1", "unknown key 'xxxxx"),
    # Values
    ("seed: " + "9" * 4000, "seed must be at most 4294967295, not 99999"),
    ("seed: " + "9" * 100_000, "a"),  # some Python versions reject it with a different message
    ("epochs: 1.0", "epochs must be a whole number, not 1.0"),
    ("epochs: True", "epochs must be a whole number, not True"),
    ("batch_size:", "batch_size must be a whole number, not None"),
    ("batch_size: 1000000", "batch_size must be at most 1024, not 1000000"),
    ("mix: 'True'", "mix must be True or False, not 'True'"),
    ("device_target: ascent", "device_target must be 'auto', 'Ascend', 'GPU' or 'CPU', not 'ascent'"),
    ("lr_init: 1e999", "lr_init must be a finite number, not inf"),
    ("lr_init: 0", "lr_init must be greater than 0, not 0"),
    ("clip_grads: 0", "clip_grads must be True or False or greater than 0, not 0"),
    ('save_dir: "a\\nb"', NOT_PLAIN + r"'a\nb'"),
    ('data: {dataset_dir: "a\\0"}', NOT_PLAIN + r"'a\x00'"),
    ("save_dir: 2024-01-01", "save_dir must be " + QUOTED + "datetime.date(2024, 1, 1)"),
    ("data: {names: [yes, no]}", "data.names[0] must be " + QUOTED + "True"),
    ("data: {train_img_dir: [a, 3]}", "data.train_img_dir[1] must be " + QUOTED + "3"),
    ("data: {target_size: big}", "data.target_size must be a list, not 'big'"),
    ("data: {target_size: [320]}", "data.target_size must be a list of at least 2 items, not [320]"),
    ("data: {target_size: [[320, 100000]]}", "data.target_size[0][1] must be at most 16384, not 100000"),
    ("backbone:", "backbone must be a section with the keys name, "),
    ("backbone: {pretrained: 3}", "backbone.pretrained must be True or False or " + QUOTED + "3"),
    ("backbone: {bn_eps: 1e-300}", "bn_eps must be at least 0.000000000001, not '1e-300'"),
    ("backbone: {fpn: {level_index: [0, 0, 1]}}", "level_index must be an ascending list, not [0, 0, 1]"),
    ("rpn_head: {anchor_generator: {anchor_sizes: [[.inf], [1], [1], [1], [1]]}}", "[0][0] must be a finite"),
]
# Command-line words, and a part of the error message.
FLAGS = [
    (["--config", "gone.yml"], "configuration file gone.yml cannot be read: No such file or directory; check the path"),
    (["--config", "/dev/zero"], "/dev/zero: more than 262144 bytes"),
    (["--batch_size", "two"], "command line: batch_size must be a whole number, not 'two'"),
    (["--seed", "9" * 5000], "--seed: invalid YAML: ValueError"),
    (["--mix", "1"], "command line: mix must be True or False, not 1"),
    (["--save_dir", "a\nb"], "command line: save_dir must be " + NOT_PLAIN + r"'a\nb'"),
    (["-o", "epochs"], "-o epochs: must have the form KEY=VALUE"),
    (["-o", "=3"], "command line: unknown key ''"),
    (["-o", "__BASE__=x.yml"], "unknown key '__BASE__'"),
    (["-o", "seed.x.y=3"], "seed must be a whole number, not {'x': {'y': 3}}"),
    (["-o", "a\nb=3"], r"command line: unknown key 'a\nb'"),
    (["-o", "seed=!!python/object/apply:os.mkdir [PROOF]"], "-o seed: invalid YAML: line 1"),
    (["-o", "lr.milestones=" + "[" * 1000], "-o lr.milestones: invalid YAML: "),
    (["--seed", "1", "-o", "seed=2"], "--seed and -o set the same key; give one of them"),
    (["-o", "backbone.fpn.num_outs=4"], "command line: rpn_head.anchor_generator.strides (5 levels)"),
]


@pytest.mark.parametrize(("content", "parts"), YAML, ids=range(len(YAML)))
def test_bad_configurations(content, parts, tmp_path, capfd):
    path, proof = tmp_path / "bad.yml", tmp_path / "proof"
    path.write_bytes(content if isinstance(content, bytes) else content.replace("PROOF", str(proof)).encode())
    sentence = refusal(lambda: load_config(path), capfd)
    assert_says(sentence, parts)
    assert str(path) in sentence and len(sentence) < 1000 and not proof.exists()


@pytest.mark.parametrize(("words", "parts"), FLAGS, ids=range(len(FLAGS)))
def test_bad_flags(words, parts, tmp_path, capfd):
    proof = tmp_path / "proof"
    words = [word.replace("PROOF", str(proof)) for word in words]
    sentence = refusal(lambda: parse_train_args(words), capfd)
    assert_says(sentence, parts)
    assert not proof.exists()
