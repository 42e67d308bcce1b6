"""Settings of the fuzz tests: the same examples in every run, or FUZZ_EXAMPLES new ones (environment, for example 20000)."""
import json
import os
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

WANTED = os.environ.get("FUZZ_EXAMPLES")

CONTROL = st.sampled_from(["\0", "\n", "\r", "\x1b[2J", "\u2028", "\ud800", "\udcff", "\ufeff", "..", "/", "\\", "%s", "{}", ""])
TEXTS = st.lists(st.one_of(CONTROL, st.text(max_size=5)), max_size=4).map("".join)
NUMBERS = st.one_of(
    st.integers(-3, 100), st.floats(), st.sampled_from([2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -2**63, 10**25, 10**400,
                                                        1e-300, 1e300, 1e38, 65000, 0.5, -0.0, True, False]))
SCALARS = st.one_of(st.none(), NUMBERS, TEXTS)
DEEP = st.sampled_from([5, 30, 300]).map(lambda depth: json.loads("[" * depth + "]" * depth))
VALUES = st.one_of(DEEP, st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)), max_leaves=6))


def fuzz(examples):
    """Return Hypothesis' settings for the given number of examples. A test that takes a minute counts as hanging."""
    return settings(max_examples=int(WANTED or examples), derandomize=not WANTED, database=None,
                    deadline=timedelta(seconds=60), suppress_health_check=list(HealthCheck))


def places(value, path=()):
    """Return the paths of all values inside nested lists and dicts, the root first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@st.composite
def spoilt(draw, make):
    """Return the nested lists and dicts of `make()` after one to four random changes of their structure."""
    content = make()
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(places(content))))
        if not path:
            content = draw(VALUES) if draw(st.integers(0, 30)) == 0 else content
            continue
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        change(draw, parent, path[-1])
    return content


def change(draw, parent, key):
    """Replace, delete, duplicate or move `parent[key]`."""
    kind = draw(st.sampled_from(["replace", "replace", "replace", "delete", "double", "move", "rename"]))
    if kind == "replace":
        parent[key] = draw(VALUES)
    elif kind == "delete":
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(draw(st.integers(0, len(parent))), parent[key])
    elif kind == "move":
        parent[key] = draw(st.sampled_from(list(parent.values())))
    else:
        parent[draw(TEXTS)] = parent[key]
