"""Settings for every test: strict promotion, Hypothesis profiles, a compilation cache.

Imports nothing of griffin_eqx: jaxtyping's import hook must come first.
"""

import gc
import itertools
import os
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

# Random cases of a property in each profile; then of one that stands for users' patterns and files, which costs
# milliseconds a case and compiles nothing: `@settings(settings.get_profile("fuzz"))`. Thorough counts are what
# two cores do in about half an hour: programs are optimised there, and most of the time goes into that.
PROFILES = {"dev": (10, 100), "ci": (20, 200), "thorough": (200, 10_000)}


def _use(profile):
    cases, fuzzed = PROFILES[profile]
    # Compilation has no deadline. `ci` gives every run the same cases, so that a red build is red again at home.
    same = {"derandomize": True, "database": None} if profile == "ci" else {}
    slow = [HealthCheck.too_slow] if profile == "thorough" else []
    settings.register_profile(profile, max_examples=cases, deadline=None, suppress_health_check=slow, **same)
    settings.load_profile(profile)
    settings.register_profile("fuzz", settings(), max_examples=fuzzed)


def pytest_addoption(parser):
    parser.addoption(
        "--profile",
        choices=PROFILES,
        default=os.environ.get("HYPOTHESIS_PROFILE", "ci"),
        help="how many random cases a property is tried on; HYPOTHESIS_PROFILE sets it too",
    )


def pytest_configure(config):
    profile = config.getoption("--profile")
    _use(profile)
    # Virtual ones, for the tests over a mesh; programs on one device take no longer for it.
    jax.config.update("jax_num_cpu_devices", 8)
    if profile != "thorough":
        _compile_quickly()
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if hasattr(config, "cache"):
        # Laws compile the same small programs in every run.
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _compile_quickly():
    """Arrays are small and programs many: optimising them takes six times longer than it saves."""
    jax.config.update("jax_disable_most_optimizations", True)
    if jax.__version_info__ < (
        0,
        11,
    ):  # later ones do not know the flag, and an unknown flag ends the process
        before = os.environ.get("XLA_FLAGS")
        os.environ["XLA_FLAGS"] = f"{before or ''} --xla_cpu_use_fusion_emitters=false"
        jax.devices()  # Flags are read now. Child processes, perhaps with another JAX, do not inherit this one.
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before


_tests_run = itertools.count(1)


@pytest.fixture(autouse=True)
def _few_programs():
    """Forgets compiled programs before there are too many: each holds several memory mappings, Linux allows a
    process 65,530, and the one that asks for more dies of a segmentation fault somewhere in XLA."""
    yield
    if next(_tests_run) % 25:
        return  # Counting takes milliseconds.
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


def pytest_collection_modifyitems(config, items):
    for marker, target in (("browser", "browser-test"), ("lm_eval", "eval-test")):
        if marker not in config.option.markexpr:
            asked = pytest.mark.skip(reason=f"{marker}: make {target}")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(asked)
    if config.getoption("--profile") == "thorough":
        return
    skip = pytest.mark.skip(reason="thorough: run with --profile thorough")
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(skip)
