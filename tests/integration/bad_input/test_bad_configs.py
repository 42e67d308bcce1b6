"""Bad configuration files and flags: the YAML or the words, and the decisive parts of the error message."""
import os

import pytest

from src.config import load_config
from src.config.command_line import parse_train_args
from tests.helpers.sentences import assert_says, refusal

NOT_PLAIN = "text without line ends and other characters that cannot be shown, not "
# The YAML of a file, and parts of the error message in addition to the file's name.
YAML = {
    "a class to be built": ("data: !!python/object:os.system {}", "invalid YAML in line 1, column 7: could not determine"),
    "a function to be called": ("seed: !!python/object/apply:os.mkdir [PROOF]", "invalid YAML in line 1"),
    "a module": ("seed: !!python/module:antigravity", "invalid YAML in line 1"),
    "an unknown tag": ("seed: !my 3", "invalid YAML in line 1"),
    "a tag on the top": ("!!set {seed, epochs}", "must be a mapping of 'key: value' lines, but this one holds {"),
    "a tabulator": ("lr:\n\twarmup_step: 2", "invalid YAML in line 2, column 1: found character"),
    "an open quote": ("save_dir: 'out", "invalid YAML in line 1"),
    "an alias of nothing": ("seed: *other", "invalid YAML in line 1"),
    "a colon in the value": ("save_dir: a: b", "invalid YAML in line 1"),
    "JSON lines": ('{"seed": 1}\n{"epochs": 2}', "invalid YAML in line 2"),
    "UTF-16 without a mark": ("seed: 1".encode("utf-16-le"), "invalid YAML"),
    "a control character": ("save_dir: \x07", "invalid YAML"),
    "a mapping as key": ("{a: 1}: 2", "invalid YAML in line 1"),
    "a merge key of a scalar": ("<<: 3", "invalid YAML in line 1"),
    "a megabyte": ("#" * 2**20, "too many for a configuration file"),
    "a key with half a character": ('"\\ud800": 1', [r"unknown key '\ud800'", "valid names here are net, "]),
    "a section inside itself": ("data: &d {data: *d}", "unknown key 'data.data'"),
    "lists in lists": ("lr: " + "[" * 1000, "invalid YAML in line 1"),
    "a number of 4,000 digits": ("seed: " + "9" * 4000, "seed must be at most 4294967295, not 99999"),
    "a number of 100,000 digits": ("seed: " + "9" * 100_000, "a"),  # some Python versions reject it with a different message
    "a base that is a number": ("__BASE__: 7", "__BASE__ must be a file name or a list of file names, not 7"),
    "a base with a NUL": ('__BASE__: "a\\0b"', "__BASE__ must be a file name or a list"),
    "a base that is a folder": ("__BASE__: .", ["which __BASE__ of", "is not a file; check the path"]),
    "a base that is a device": ("__BASE__: /dev/zero", "is not a file"),
    "a list for the whole": ("- seed: 1\n- epochs: 2", "must be a mapping of 'key: value' lines"),
    "a misspelt section": ("optimiser: {momentum: 0.9}", "unknown key 'optimiser'; did you mean 'optimizer'"),
    "a key of 100,000 letters": ("x" * 100_000 + "y: 1", "invalid YAML"),
    "a key of dots": ("'..': 1", "unknown key '..'; valid names here are net, device_target, ms_mode, jit_level, mix, "),
    "a key of 1,000 letters": ("x" * 1000 + ": 1", "unknown key 'xxxxx"),
    "a quoted key of two lines": ('"a\\nb": 1', [r"unknown key 'a\nb'", "valid names here are"]),
    "a folder of two lines": ('save_dir: "a\\nb"', NOT_PLAIN + r"'a\nb'"),
    "a folder with a NUL": ('data: {dataset_dir: "a\\0"}', NOT_PLAIN + r"'a\x00'"),
    "a folder with half a character": ('save_dir: "\\ud800"', NOT_PLAIN + r"'\ud800'"),
    "a date for a folder": ("save_dir: 2024-01-01", "save_dir must be text, not datetime.date(2024, 1, 1); put text that looks"),
    "binary data for a folder": ("save_dir: !!binary aGk=", "save_dir must be text, not b'hi'"),
    "device_target misspelt": ("device_target: ascent",
                               "must be 'auto', 'Ascend', 'GPU' or 'CPU', not 'ascent'; did you mean 'Ascend'?"),
    "milestones not ascending": ("lr: {milestones: [11, 8]}", "lr.milestones must be an ascending list"),
    "milestones of epoch 0": ("lr: {milestones: [0, 8]}",
                              "lr.milestones[0] must be at least 1, not 0"),
    "milestones twice the same": ("lr: {milestones: [8, 8]}", "lr.milestones must be an ascending list"),
    "a batch of nothing": ("batch_size: 0", "batch_size must be at least 1, not 0"),
    "a batch for a data centre": ("batch_size: 1000000", "batch_size must be at most 1024, not 1000000"),
    "a queue of a billion": ("prefetch_size: 1000000000", "prefetch_size must be at most 1024, not 1000000000"),
    "no workers": ("num_workers: 0", "num_workers must be at least 1, not 0"),
    "a canvas of letters": ("data: {target_size: big}", "data.target_size must be a list, not 'big'"),
    "a canvas for a planet": ("data: {target_size: [100000, 100000]}", "data.target_size[0] must be at most 16384, not 100000"),
    "more anchors than two digits": ("data: {target_size: [8000, 8000]}", ["[8000, 8000] and rpn_head.anchor_generator give",
                                                                         "more than 4194304; choose a smaller"]),
    "an anchor of no size": ("rpn_head: {anchor_generator: {anchor_sizes: [[0], [1], [1], [1], [1]]}}",
                             "anchor_sizes[0][0] must be at least 1, not 0"),
    "an anchor of infinite size": ("rpn_head: {anchor_generator: {anchor_sizes: [[.inf], [1], [1], [1], [1]]}}",
                                 "anchor_sizes[0][0] must be a finite number, not inf"),
    "an anchor of negative ratio": ("rpn_head: {anchor_generator: {aspect_ratios: [-1]}}",
                                 "aspect_ratios[0] must be at least 0.01, not -1"),
    "no anchors at all": ("rpn_head: {anchor_generator: {aspect_ratios: []}}",
                          "aspect_ratios must be a list of 1 or more, not []"),
    "strides that are not the levels'": ("rpn_head: {anchor_generator: {strides: [4, 8, 16, 32, 65]}}",
                                         "must be [4, 8, 16, 32, 64]"),
    "a level twice": ("backbone: {fpn: {level_index: [0, 0, 1]}}", "level_index must be an ascending list"),
    "a loss that turns at 0": ("bbox_head: {smooth_l1_beta: 0}", "smooth_l1_beta must be at least 1e-06, not 0"),
    "an epsilon below fp32": ("backbone: {bn_eps: 1e-300}", "bn_eps must be at least 1e-12, not '1e-300'"),
    "weights of nothing": ("bbox_head: {bbox_weights: [0, 1, 1, 1]}",
                           "bbox_weights[0] must be at least 0.01, not 0"),
    "a loss scale beyond fp32": ("ms_loss_scaler_value: 1e300", "ms_loss_scaler_value must be at most 1073741824, not '1e300'"),
    "a weight decay beyond fp32": ("optimizer: {weight_decay: 1e300}", "optimizer.weight_decay must be at most 1, not '1e300'"),
    "gradients clipped to nothing": ("clip_grads: 0", "clip_grads must be True or False or a number above 0"),
    "a learning rate of nothing": ("lr_init: 0", "lr_init must be a number above 0, not 0"),
    "a threshold in percent": ("infer: {conf_threshold: 5}", "infer.conf_threshold must be at most 1, not 5"),
    "a head of another width": ("bbox_head: {head: {in_channel: 255}}", "must equal backbone.out_channels (256)"),
    "a pyramid of 10**9 channels": ("backbone: {out_channels: 1000000000}", "out_channels must be at most 4096, not 1000000000"),
    "classes that are no texts": ("data: {names: [1, 2]}", "data.names[0] must be text, not 1; put text"),
    "a class twice": ("data: {names: [a, a]}", "must not name a class twice"),
    "a transform without parameters' mapping": ("data: {eval_transforms: {item_transforms: [{Resize: 3}]}}",
                                                "Resize must be a section with the keys keep_ratio, shrink, exact_factor, "
                                                "shortest, longest, not 3"),
    "a setting that only the program sets": ("config_file: x", "unknown key 'config_file'"),
}

# Command-line words, and parts of the error message.
FLAGS = {
    "no such configuration": (["--config", "gone.yml"], "configuration file gone.yml does not exist; check the path"),
    "a folder as configuration": (["--config", "."], "configuration file . is not a file"),
    "a device as configuration": (["--config", "/dev/zero"], "/dev/zero is not a file"),
    "an image as configuration": (["--config", "IMAGE"], "invalid YAML"),
    "device_target in small letters": (["--device_target", "gpu"], "not 'gpu'; did you mean 'GPU'?"),
    "device_target empty": (["--device_target", ""],
                            "--device_target: device_target must be 'auto', 'Ascend', 'GPU' or 'CPU', not ''"),
    "a number in words": (["--batch_size", "two"], "--batch_size: batch_size must be a whole number, not 'two'"),
    "a number with a unit": (["--num_workers",
                             "4x"], "--num_workers: num_workers must be a whole number, not '4x'"),
    "a number of 5,000 digits": (["--seed", "9" * 5000], "--seed: seed must be a whole number, not "),
    "a negative number": (["--log_interval", "-1"], "log_interval must be at least 1, not -1"),
    "not a number": (["--lr_init", "nan"], "lr_init must be a number, not 'nan'"),
    "a yes": (["--mix", "yes"], "--mix: mix must be True or False, not 'yes'"),
    "a loss scaler of another kind": (["--ms_loss_scaler", "adaptive"], "must be 'static', 'dynamic' or 'none', not 'adaptive'"),
    "a folder of two lines": (["--save_dir", "a\nb"], "--save_dir: save_dir must be " + NOT_PLAIN + r"'a\nb'"),
    "an -o without a value": (["-o", "epochs"], "-o epochs: must have the form KEY=VALUE"),
    "an -o without a key": (["-o", "=3"], "unknown key ''"),
    "an -o of many dots": (["-o", "." * 5000 + "=3"], "unknown key"),
    "an -o below a number": (["-o", "seed.x.y=3"], "seed must be a whole number, not {'x': {'y': 3}}"),
    "an -o with a key of two lines": (["-o", "a\nb=3"], r"-o a\nb: unknown key 'a\nb'"),
    "an -o with a class to be built": (["-o", "seed=!!python/object/apply:os.mkdir [PROOF]"], "-o seed: invalid YAML in line 1"),
    "an -o of open brackets": (["-o", "lr.milestones=" + "[" * 1000], "-o lr.milestones: invalid YAML in line 1"),
    "an -o against a flag": (["--seed", "1", "-o", "seed=2"], "-o seed: --seed is given as well"),
    "an -o of nothing": (["-o", "epochs="], "epochs must be a whole number, not None"),
}


@pytest.mark.parametrize("name", YAML)
def test_bad_configurations(name, tmp_path, capfd):
    content, parts = YAML[name]
    path, proof = tmp_path / "bad.yml", tmp_path / "proof"
    path.write_bytes(content if isinstance(content, bytes) else content.replace("PROOF", str(proof)).encode())
    sentence = refusal(lambda: load_config(path), capfd)
    assert_says(sentence, parts)
    assert str(path) in sentence and len(sentence) < 1000 and not proof.exists()


@pytest.mark.parametrize("name", FLAGS)
def test_bad_flags(name, data_folder, tmp_path, capfd):
    words, parts = FLAGS[name]
    proof = tmp_path / "proof"
    words = [word.replace("PROOF", str(proof)).replace("IMAGE", str(data_folder / "train2017" / "000001.jpg")) for word in words]
    sentence = refusal(lambda: parse_train_args(words), capfd)
    assert_says(sentence, parts)
    assert not proof.exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no /proc")
def test_a_configuration_that_cannot_be_read(capfd):
    assert_says(refusal(lambda: load_config("/proc/self/mem"), capfd), "configuration file /proc/self/mem cannot be read: ")
