"""The structure of the source code: imports, types, and the size of functions."""
import ast
import pydoc
import re
from graphlib import TopologicalSorter

import pytest

from tests.helpers.paths import ROOT

OPTIONAL = ["cpu_kernels", "report", "visualization", "export", "convert", "deploy", "tools"]
SCRIPTS = ["train.py", "eval.py", "infer.py", "export.py"]
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
         for path in [*(ROOT / name for name in SCRIPTS), *(path for folder in ("src", "deploy", "tools")
                                                            for path in (ROOT / folder).rglob("*.py"))]}
# Names that MindSpore 2.9 and 2.10 announce to remove. Their replacements are missing in 2.7.1, or are announced or slower.
TO_BE_REMOVED = {
    "mindspore.get_context", "mindspore.nn.utils.no_init_parameters",
    "mindspore.ops.bias_add", "mindspore.ops.cast", "mindspore.set_auto_parallel_context", "mindspore.set_context"}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def imports_of(module):
    """Return the modules of this project that a module imports, at its top or in functions, as a set."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    if module.startswith("deploy"):  # whose files import each other without a package
        found |= {f"deploy.{name}" for name in found}
    return (found & FILES.keys()) - {module}


def package_of(module):
    return module.removeprefix("src.").split(".")[0]


def functions_of(node, public=True):
    """Yield (function, whether it is public) of all functions in a syntax tree. Functions within functions are not public."""
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", "")
        named = public and (not name.startswith("_") or name in ("__init__", "__call__"))
        if isinstance(child, ast.FunctionDef):
            yield child, named
        yield from functions_of(child, named and not isinstance(child, ast.FunctionDef))


def test_no_import_cycle():
    order = list(TopologicalSorter({module: imports_of(module) for module in FILES}).static_order())
    assert order.index("src.errors") < order.index("src.config.load") < order.index("train")


@pytest.mark.parametrize("package", OPTIONAL)
def test_only_one_module_of_the_core_imports_an_optional_package(package):
    core = [module for module in FILES if module != "src.run.optional" and package_of(module) not in (*OPTIONAL, "infer")]
    assert [module for module in core if package in {package_of(name) for name in imports_of(module)}] == []


@pytest.mark.parametrize("module", FILES)
def test_public_functions_have_complete_types_and_all_functions_fit_on_a_screen(module):
    for function, public in functions_of(TREES[module]):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        untyped = [argument.arg for argument in every if argument and not argument.annotation
                   and argument.arg not in ("self", "cls", "_", "__")]
        returns = function.returns or function.name == "__init__"
        assert not public or not untyped and returns, f"line {function.lineno}: {function.name} {untyped}"
        assert function.end_lineno - function.lineno < 70, f"line {function.lineno}: {function.name}"


def mindspore_names(module):
    """Return the names of MindSpore that a module uses, such as mindspore.ops.relu, as a set."""
    nodes = list(ast.walk(TREES[module]))
    # The complete name of each imported name.
    meanings = {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported = {alias.asname or alias.name: f"{node.module}.{alias.name}"
                for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    meanings.update(imported)
    found = set(imported.values())
    for node in nodes:
        first, *rest = re.match(r"[\w.]*", ast.unparse(node))[0].split(".") if isinstance(node, ast.Attribute) else [""]
        found |= {".".join([meanings[first], *rest])} if first in meanings else set()
    return {name for name in found if name.startswith("mindspore.")}


def test_mindspore_has_all_names_and_announces_to_remove_no_others():
    """The notes are in docstrings."""
    names = set().union(*map(mindspore_names, TREES))
    assert {"mindspore.nn.Conv2d", "mindspore.ops.cast", "mindspore.runtime.launch_blocking"} < names and len(names) > 100
    objects = {name: pydoc.locate(name) for name in names}
    assert [name for name, found in objects.items() if found is None] == []
    note = re.compile(r"this\s+(?:interface|api)\s+(?:is|will\s+be)\s+deprecated", re.IGNORECASE)
    assert {name for name, found in objects.items() if callable(found) and note.search(found.__doc__ or "")} <= TO_BE_REMOVED
