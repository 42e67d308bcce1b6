"""Tests whose requirements are missing."""
import pytest

from tests.helpers.skipping import skip_or_fail


@pytest.mark.parametrize(("value", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_requirement_is_a_failure_in_ci(monkeypatch, value, outcome):
    monkeypatch.setenv("CI", value)
    with pytest.raises(outcome, match="there is no mpirun"):
        skip_or_fail("there is no mpirun")
