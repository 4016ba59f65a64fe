"""The child process: reads jobs from standard input, one JSON object a line, and answers each with one line.

Run by path with the compiler's own Python, isolated (`-I`). The packages that it needs are handed over by folder,
one by one: a whole `site-packages` on the path would bring the user's JAX along.
"""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import traceback
from pathlib import Path


def _adopt(name: str, place: Path) -> None:
    """Makes a package importable from its folder, or a module from its file, and nothing that lies beside it."""
    inside = [str(place)] if place.is_dir() else None
    file = place / "__init__.py" if inside else place
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _serve(serves: str, dump: Path) -> None:
    # The compiler writes to standard output at times; answers have it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    module, _, name = serves.partition(":")
    answer_to = getattr(importlib.import_module(module), name)
    versions = {each: importlib.metadata.version(each) for each in ("jax", "libtpu") if _is_installed(each)}
    print(json.dumps({"versions": versions}), file=answers)
    for line in sys.stdin:
        try:
            answer = {"reading": answer_to(json.loads(line), dump)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
        shutil.rmtree(dump, ignore_errors=True)
        dump.mkdir(exist_ok=True)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    serves, dump, *packages = sys.argv[1:]
    for package in packages:
        name, _, folder = package.partition("=")
        _adopt(name, Path(folder))
    _serve(serves, Path(dump))
