"""Who may import whom, and what must not be imported at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.core


def _sources(package):
    spec = __import__(package)
    return sorted(Path(next(iter(spec.__path__))).rglob("*.py"))


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def _outside(package, allowed):
    known = set(sys.stdlib_module_names) | {package, *allowed}
    return {
        path.name: set(_imported(path)) - known for path in _sources(package) if set(_imported(path)) - known
    }


def test_kernels_know_only_jax_numpy_and_jaxtyping():
    assert _outside("griffin_kernels", {"jax", "numpy", "jaxtyping"}) == {}


def test_oracles_know_only_numpy():
    oracles = [path for path in _sources("griffin_kernels") if path.name == "oracle.py"]
    assert oracles
    assert all(set(_imported(path)) == {"numpy"} for path in oracles)


def test_the_framework_imports_no_plugin():
    assert all("griffin_plugins" not in set(_imported(path)) for path in _sources("griffin_eqx"))


def test_plugins_use_the_public_door():
    """Blocks import the framework's public modules only: no name with a leading underscore."""
    for path in _sources("griffin_plugins"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("griffin_eqx"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                assert not any(name.startswith("_") for name in names), (path.name, names)


def test_only_the_kit_needs_hypothesis():
    for path in _sources("griffin_eqx"):
        assert "verify" in path.parts or "hypothesis" not in set(_imported(path)), path


@pytest.mark.parametrize("package", ["griffin_eqx", "griffin_plugins", "griffin_kernels"])
def test_nothing_unpickles_or_evaluates(package):
    """Loading data or weights never runs code."""
    banned = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in _sources(package):
        tree = ast.parse(path.read_text())
        assert not banned & set(_imported(path)), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in {"eval", "exec"}, (path, node.lineno)
                assert not any(
                    k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in node.keywords
                )


@pytest.mark.parametrize(
    "module", ["pattern", "config", "presets", "registry", "task", "tasks", "errors", "laws", "cli"]
)
def test_what_help_needs_imports_no_jax(module):
    code = f"import sys, griffin_eqx.{module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
