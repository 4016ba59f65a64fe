"""`griffin new block` lays out a block that works, keeps the laws, and is clean."""

import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import msgspec
import pytest

from griffin_eqx import registry
from griffin_eqx.cli.configure import ModelSwitches, configure
from griffin_eqx.model import LanguageModel
from griffin_eqx.verify import BLOCK_LAWS, check_block

pytestmark = pytest.mark.core


@pytest.fixture
def laid_out(griffin, tmp_path):
    answer = griffin("new", "block", "Moving-Average")
    assert answer.code == 0, answer.err
    return tmp_path / "moving_average"


def plugin_of(folder) -> str:
    return str(folder / "griffin_moving_average/moving_average.py")


@pytest.fixture
def block(laid_out, griffin):
    return registry.add_file(plugin_of(laid_out))[0]


def test_every_file_is_there_and_no_placeholder_is_left(laid_out):
    files = {str(path.relative_to(laid_out)) for path in laid_out.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "pyproject.toml",
        "griffin_moving_average/__init__.py",
        "griffin_moving_average/moving_average.py",
        "tests/test_moving_average.py",
    }
    for file in files:
        text = (laid_out / file).read_text()
        assert "my_block" not in text.lower()
        assert "MyBlock" not in text
        assert "moving_average" in text
    assert len((laid_out / "griffin_moving_average/moving_average.py").read_text().splitlines()) <= 60


def test_nothing_is_overwritten(laid_out, griffin):
    (laid_out / "README.md").write_text("mine")
    code, _, err = griffin("new", "block", "moving_average")
    assert code == 2
    assert "moving_average exists already" in err
    assert (laid_out / "README.md").read_text() == "mine"


def test_it_runs_from_its_file(laid_out, griffin):
    code, out, err = griffin("info", "(moving-average L)@4", "--plugin", plugin_of(laid_out))
    assert (code, err) == (0, "")
    assert "(moving_average local_mqa)*2" in out


def test_it_scores_text_in_a_hybrid(block):
    config, _ = configure(["moving_average[half_life=8] L"], ModelSwitches, prog="griffin test")
    model_config = msgspec.structs.replace(config.model, width=32, lru_width=32, vocab_size=7)
    model = jax.jit(lambda: LanguageModel.init(model_config, key=jax.random.key(0)))()
    logits, _ = jax.jit(lambda tokens: model(tokens))(jnp.arange(5))
    assert bool(jnp.isfinite(logits).all())


@pytest.mark.parametrize("law", list(BLOCK_LAWS))
def test_it_keeps_the_laws(block, law):
    check_block(block, law, max_examples=3)


@pytest.mark.skipif(shutil.which("ruff") is None, reason="ruff is not installed")
def test_it_is_clean(laid_out):
    for command in (["check", "--extend-select", "I,B,UP,RUF"], ["format", "--check"]):
        answer = subprocess.run(["ruff", *command, "."], cwd=laid_out, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout


def test_installed_it_is_a_name_like_any_other_and_its_test_passes(laid_out):
    """Installed means: the package and its entry points on the path, as a wheel lays them out."""
    entry_points = laid_out / "griffin_moving_average-0.1.0.dist-info"
    entry_points.mkdir()
    (entry_points / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: griffin-moving-average\nVersion: 0.1.0\n"
    )
    declared = (laid_out / "pyproject.toml").read_text()
    assert 'moving_average = "griffin_moving_average.moving_average:MovingAverageBlock"' in declared
    (entry_points / "entry_points.txt").write_text(
        "[griffin_eqx.blocks]\nmoving_average = griffin_moving_average.moving_average:MovingAverageBlock\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "options",
        "tests",
    ]
    answer = subprocess.run(command, cwd=laid_out, capture_output=True, text=True)
    assert "1 passed" in answer.stdout, answer.stdout + answer.stderr
    command = [sys.executable, "-m", "griffin_eqx", "blocks"]
    assert (
        "griffin-moving-average 0.1.0"
        in subprocess.run(command, cwd=laid_out, capture_output=True, text=True).stdout
    )
