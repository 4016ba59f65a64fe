"""The child process: reads jobs from standard input, one JSON object a line, and answers each with one line.

Run by path with the compiler's own Python, isolated (`-I`). The packages that it needs are handed over by folder,
one by one: a whole `site-packages` on the path would bring the user's JAX along.
"""

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path


def _adopt(name: str, folder: Path) -> None:
    """Makes a package importable from its folder, and nothing that lies beside it."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _serve(dump: Path) -> None:
    # The compiler writes to standard output at times; answers have it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import importlib.metadata

    from griffin_eqx.aot.probe import probe

    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    print(json.dumps({"versions": versions}), file=answers)
    for line in sys.stdin:
        try:
            answer = {"reading": probe(json.loads(line), dump)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
        for file in dump.iterdir():
            file.unlink(missing_ok=True)


if __name__ == "__main__":
    dump, *packages = sys.argv[1:]
    for package in packages:
        name, _, folder = package.partition("=")
        _adopt(name, Path(folder))
    _serve(Path(dump))
