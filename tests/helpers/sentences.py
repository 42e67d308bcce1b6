"""Run the program in tests of bad input, and check the common form of all error messages."""
import sys

import eval as evaluation_script
import train as training_script
from src.config.command_line import parse_eval_args, parse_train_args
from src.run.launch import StopSignals, run
from tests.helpers.paths import ROOT

QUICK_START = str(ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet18_fpn_shapes.yml")
SCRIPTS = {"train.py": (training_script.main, parse_train_args), "eval.py": (evaluation_script.main, parse_eval_args)}


def sentence_of(stderr):
    """Return the text after `error: `; fails unless standard error is exactly one such line."""
    assert stderr.startswith("error: ") and stderr.endswith("\n") and len(stderr.splitlines()) == 1, stderr
    return stderr[len("error: "):-1]


def refusal(function, capfd):
    """Run `function` like the scripts run their main function; returns the sentence of its UserError."""
    assert run(lambda *_: function(), lambda: None) == 1
    output = capfd.readouterr()
    assert "Traceback" not in output.out
    return sentence_of(output.err)


def refused_script(script, words, monkeypatch, capfd):
    """Run train.py or eval.py in this process with command-line words; returns the sentence of its error."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    assert run(*SCRIPTS[script], StopSignals()) == 1
    output = capfd.readouterr()
    assert "Traceback" not in output.out
    return sentence_of(output.err)


def assert_says(sentence, parts):
    """Fail unless the sentence contains all of `parts`, a text or a list of texts."""
    for part in [parts] if isinstance(parts, str) else parts:
        assert part in sentence, sentence
