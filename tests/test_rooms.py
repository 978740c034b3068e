"""The shape of the package: which room may import which, and what is public."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lesionzarr

PACKAGE = Path(lesionzarr.__file__).parent
VOCABULARY = {"_shown", "errors", "report", "geometry", "window", "recist", "lesion", "series", "source"}
MAY_IMPORT = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "_version": set(),
    "_lazy": set(),
    "_workers": VOCABULARY,
    "samples": set(),
    "formats": VOCABULARY,
    "annotations": VOCABULARY | {"formats"},
    "store": VOCABULARY | {"_version", "_lazy"},
    "converters": VOCABULARY | {"formats", "annotations", "samples", "_workers"},
    "readers": VOCABULARY | {"store", "_lazy"},
    "features": VOCABULARY | {"store", "readers", "_workers"},
    "export": VOCABULARY | {"formats", "store", "readers", "features"},
    "viewer": VOCABULARY | {"store"},
    "plot": VOCABULARY | {"store", "readers", "features", "export"},
}
"""Rooms that may import anything are left out: the command line, the demo, the package's front."""

STEERING = {f"lesionzarr.converters._{name}" for name in ("care", "plan", "run", "work")}
"""These alone of their room meet the store."""

MODULES = sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "lesionzarr."))


def parsed(module):
    path = PACKAGE / Path(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text())


def imported(module):
    """Modules of the package that a module imports, with those for type checking only apart."""
    tree = parsed(module)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    at_run_time, all_of_them = set(), set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lesionzarr"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("lesionzarr")]
        all_of_them.update(names)
        if id(node) not in typing_only:
            at_run_time.update(names)
    return at_run_time, all_of_them


def room(module):
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in MAY_IMPORT])
def test_a_room_imports_only_what_lies_before_it(module):
    allowed = MAY_IMPORT[room(module)] | {room(module)}
    if module in STEERING:
        allowed |= {"store"}
    _, all_of_them = imported(module)
    assert {room(name) for name in all_of_them} <= allowed


def test_no_module_imports_itself_through_others():
    graph = {module: imported(module)[0] for module in MODULES}
    done, path = set(), []

    def follow(module):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            path.append(module)
            for other in graph.get(module, ()):
                follow(other)
            path.pop()
            done.add(module)

    for module in MODULES:
        follow(module)
    assert len(done) >= len(MODULES)


def test_what_is_public_is_there_and_says_what_it_is():
    for name in lesionzarr.__all__:
        assert hasattr(lesionzarr, name)
    for module in MODULES:
        # read, not imported: some need an extra
        assert ast.get_docstring(parsed(module)), module


def test_importing_the_package_loads_no_scheduler_and_no_extra():
    code = "import sys, lesionzarr; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"distributed", "obstore", "tensorstore", "torch", "cv2", "matplotlib"} & set(loaded)
