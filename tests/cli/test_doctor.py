"""`griffin doctor` finds what is wrong with a machine, and never fails itself."""

import importlib.metadata
import json

import pytest
from griffin_kernels.linear_scan import oracle

from griffin_eqx import registry
from griffin_eqx.cli.doctor import in_range, supported_ranges

pytestmark = pytest.mark.core


def findings(griffin) -> tuple[int, dict[str, dict]]:
    code, out, err = griffin("doctor", "--json")
    assert err == ""
    return code, {finding["check"]: finding for finding in json.loads(out)}


def test_a_good_machine_passes(griffin):
    code, found = findings(griffin)
    assert code == 0, [finding for finding in found.values() if not finding["ok"]]
    wanted = {
        "python",
        "jax",
        "equinox",
        "devices",
        "processes",
        "block rg_lru",
        "task text",
        "scan kernel",
        "scan check",
        "rg_lru kernel",
        "run folder",
    }
    assert wanted <= set(found)
    assert "All " in griffin("doctor").out


def test_it_names_what_the_recurrent_block_runs(griffin):
    _, found = findings(griffin)
    assert found["rg_lru kernel"]["detail"] == (
        "gated_rg_lru, composed, of composed, pallas_tpu: the first choice on cpu; in it rg_lru_scan, xla, of xla, "
        "pallas_tpu, pallas_gpu: the first choice on cpu"
    )


def test_a_version_outside_of_the_tested_range_is_found(griffin, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "9.0" if name == "optax" else version(name)
    )
    code, found = findings(griffin)
    assert code == 1
    assert found["optax"]["detail"].startswith("9.0; tested is ")


def test_a_wrong_scan_is_found(griffin, monkeypatch):
    right = oracle.linear_scan_oracle
    monkeypatch.setattr(oracle, "linear_scan_oracle", lambda *args: [z + 1e-3 for z in right(*args)])
    code, found = findings(griffin)
    assert (code, found["scan check"]["ok"]) == (1, False)


def test_a_block_that_cannot_be_imported_is_found(griffin, monkeypatch):
    def load(name):
        raise registry.RegistryError(f"{name} is broken.")

    monkeypatch.setattr(registry, "load", load)
    code, found = findings(griffin)
    assert (code, found["block rg_lru"]["detail"]) == (1, "rg_lru is broken.")


def test_a_check_that_fails_is_a_finding(griffin, monkeypatch):
    monkeypatch.setattr(registry, "entries", lambda: 1 / 0)
    code, found = findings(griffin)
    assert code == 1
    assert found["blocks"]["detail"] == "ZeroDivisionError: division by zero"
    assert found["scan check"]["ok"]


@pytest.mark.parametrize(
    ("version", "wanted", "inside"),
    [
        ("0.10.2", ">=0.10.2,<0.13", True),
        ("0.10.1", ">=0.10.2,<0.13", False),
        ("0.12.0.1", "<0.13,>=0.10.2", True),
        ("0.13.0", "<0.13,>=0.10.2", False),
        ("2.4.0rc1", ">=2.2", True),
        ("1.0", "", True),
    ],
)
def test_ranges_are_read(version, wanted, inside):
    assert in_range(version, wanted) is inside


def test_the_ranges_are_those_of_the_package():
    assert set(supported_ranges()) >= {"jax", "equinox", "optax", "numpy"}
    assert in_range("0.10.2", supported_ranges()["jax"])
