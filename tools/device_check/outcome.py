"""What is known of a part after it was tried."""
from __future__ import annotations

from dataclasses import dataclass, field

OK, DIFFERS, FAILED, SKIPPED = "OK", "DIFFERS", "FAILED", "SKIPPED"
BAD = DIFFERS, FAILED


@dataclass
class Outcome:
    """One line of the report.

    Attributes:
        name: of the part.
        result: OK, DIFFERS (it ran and gave other numbers), FAILED (it did not run to its end) or SKIPPED.
        note: a sentence for the table.
        details: the last lines of a program's output.
        compile_s: seconds of the first run, forward, and with gradients.
        run_ms: of later ones.
        error: the largest, relative to the largest number of its tensor.
        tolerance: up to which it counts as rounding.
    """
    name: str
    result: str
    note: str = ""
    details: str = ""
    compile_s: list[float | None] = field(default_factory=lambda: [None, None])
    run_ms: list[float | None] = field(default_factory=lambda: [None, None])
    error: float | None = None
    tolerance: float | None = None
