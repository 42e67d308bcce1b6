"""The report of tools/check_device.py: one Markdown file, to be put into an issue as it is."""
from __future__ import annotations

from src.run.files import atomic_write
from tools.device_check.outcome import DIFFERS, FAILED, OK, SKIPPED, Outcome

WHERE_TO_POST = ("Please put this whole file into an issue of the project, with a title such as \"Device check: Ascend 910B3, "
                 "MindSpore 2.10.0\", whether or not everything is OK.")
ABOUT = """Parts of the network ran alone, at 768x1280 with one image; training, training_fp16, inference and update
are those of R18-FPN at 128x160 with two. "First run" is with compilation; "later runs" are medians; both forward / forward and
backward.

The error is the largest difference from numbers that MindSpore's own operators gave on a CPU in fp32, relative to the largest
number of the tensor. It is OK up to the tolerance: what rounding makes in fp32, and on Ascend and GPU what is left where
convolutions and matrix products round their factors to 10 or 11 bits, as HF32 and TF32 do in fp32 by default, and fp16 does."""


def write_report(path: str, device_target: str, tables: dict[str, list[tuple[str, str]]], outcomes: list[Outcome],
                 asked: list[str]) -> None:
    """Write the report of what is known so far.

    Args:
        tables: {heading: (name, value) rows} of what is known about the machine.
        outcomes: so far.
        asked: names of all that is to be checked.
    """
    lines = [f"# Device check: {device_target}", "", summary(outcomes, asked), "", ABOUT, "",
             "| | result | first run, s | later runs, ms | error | tolerance | |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {own.name} | {own.result} | {_pair(own.compile_s)} | {_pair(own.run_ms)} | {_number(own.error)} | "
              f"{_number(own.tolerance)} | {own.note} |" for own in outcomes]
    for own in outcomes:
        if own.details:
            lines += ["", f"## {own.result}: {own.name}", "", *_block(own.details)]
    for heading, rows in tables.items():
        lines += ["", f"## {heading}", ""]
        for name, value in rows:
            lines += [f"{name}:", *_block(value)] if "\n" in value else [f"- {name}: `{value}`"]
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, "", WHERE_TO_POST, ""]))


def summary(outcomes: list[Outcome], asked: list[str]) -> str:
    """A sentence: how many are OK, and the names of all others."""
    counts = [f"{sum(own.result == OK for own in outcomes)} OK"]
    names = {result: [own.name for own in outcomes if own.result == result] for result in (FAILED, DIFFERS, SKIPPED)}
    names["not yet tried"] = [name for name in asked if name not in [own.name for own in outcomes]]
    return ", ".join(counts + [f"{len(own)} {result} ({', '.join(own)})" for result, own in names.items() if own]) + "."


def _block(text):
    return ["```", *text.replace("```", "'''").splitlines(), "```"]


def _pair(values):
    return " / ".join(f"{value:.1f}" for value in values if value is not None)


def _number(value):
    return "" if value is None else f"{value:.1e}" if value else "0"
