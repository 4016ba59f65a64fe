"""The pages under docs/ are as shown: docs/verification.md finds, names and mends its example; rows and tasks of
docs/tasks.md are those that the code gives."""

import doctest
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from griffin_eqx import registry, tasks
from griffin_eqx.cli import main
from griffin_eqx.config import DataConfig
from griffin_eqx.laws import LAWS
from griffin_eqx.verify import SCAN_LAWS

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "verification.md").read_text(encoding="utf-8")
FENCES = [text for _, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
BLOCK = next(text for text in FENCES if text.startswith("# short_conv.py"))
SHOWN = next(text for text in FENCES if text.startswith("$ griffin verify"))
MENDED = next(text for text in FENCES if "dynamic_slice_in_dim" in text and text.startswith("   "))

TASKS = (DOCS / "tasks.md").read_text(encoding="utf-8")


@pytest.fixture
def verify(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.default, "_added", {})
    monkeypatch.setattr("griffin_eqx.cli.verify.compile_quickly", lambda: None)

    def run(source):
        Path("short_conv.py").write_text(source)
        argv = SHOWN.splitlines()[0].split()[2:]
        code = main(argv)
        return code, capsys.readouterr().out

    return run


def test_the_mistake_is_found_as_shown(verify):
    code, out = verify(BLOCK)
    assert code == 1
    position = 0
    for line in SHOWN.splitlines()[1:]:
        for part in filter(str.strip, line.split("...")):
            position = out.find(part.strip(), position)
            assert position >= 0, (part, out)


def test_the_line_mends_it(verify):
    broken = next(line for line in BLOCK.splitlines() if "recent = seen" in line)
    code, out = verify(BLOCK.replace(broken, MENDED.rstrip()))
    assert (code, "2 of 2 laws hold" in out) == (0, True)


def test_every_law_is_in_its_table():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert named == [*LAWS, *SCAN_LAWS]


def test_links_lead_somewhere():
    pages = {path: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    links = [(path, link) for path, text in pages.items() for link in re.findall(r"\]\(([^)#]+)\)", text)]
    assert links
    assert all("://" in link or (path.parent / link).exists() for path, link in links)


def test_rows_of_tasks_are_as_shown():
    examples = doctest.DocTestParser().get_doctest(TASKS, {}, "tasks.md", "docs/tasks.md", 0)
    assert len(examples.examples) > 5
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_every_task_is_in_the_table():
    named = re.findall(r"^\| `(\w+)` \|", TASKS, re.MULTILINE)
    assert sorted(named) == [
        entry.name for entry in tasks.entries() if entry.distribution.startswith("griffin")
    ]


@pytest.fixture
def flip_flop(tmp_path, monkeypatch):
    """The page's own task in a file, and the command that trains on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks.default, "_added", {})
    source, command = (
        re.search(rf"^```{language}\n({begin}.*?)^```$", TASKS, re.MULTILINE | re.DOTALL)
        for language, begin in (("python", "# flip_flop"), ("bash", "griffin train"))
    )
    assert source
    assert command
    Path("flip_flop.py").write_text(source[1])
    return shlex.split(command[1])[1:]


def test_a_task_of_ones_own_remembers_the_bit_written_last(flip_flop):
    assert [task.name for task in tasks.add_file("flip_flop.py")] == ["flip_flop"]
    task = tasks.init("flip_flop[skip=0.5]", DataConfig(seq_len=21, batch_size=50))
    for tokens, targets in zip(*(part.tolist() for part in task.train_batch(3, 4)[:2]), strict=True):
        for place in range(0, 20, 2):
            write = max(p for p in range(0, place + 1, 2) if tokens[p] == 2)
            assert targets[place] == (tokens[write + 1] if tokens[place] == 3 else -1)
        assert tokens[-1] == 4
    assert len(np.unique(task.train_batch(0, 0).tokens, axis=0)) == 50
    with pytest.raises(tasks.PatternError, match="skip: 0 to less than 1, got 1"):
        tasks.init("flip_flop[skip=1]", DataConfig())


def test_a_task_of_ones_own_is_trained_on_as_shown(flip_flop, capsys):
    small = "rg_lru --model.width 32 --data.batch_size 2 --train.steps 2 --train.eval_tokens 64 --train.eval_every 0"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert main([*flip_flop, *shlex.split(small)]) == 0
    assert "flip_flop[skip=0.9]" in next(Path("runs").glob("*/config.toml")).read_text()


def test_the_block_of_the_page_on_meshes_is_the_same_over_all_of_them(tmp_path, monkeypatch, capsys):
    page = (DOCS / "meshes.md").read_text(encoding="utf-8")
    source = re.search(r"^```python\n(# leaky_sum.*?)^```$", page, re.MULTILINE | re.DOTALL)
    command = re.search(r"`griffin (verify block --plugin leaky_sum.py .*?)`", page)
    assert source
    assert command
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.default, "_added", {})
    monkeypatch.setattr("griffin_eqx.cli.verify.compile_quickly", lambda: None)
    Path("leaky_sum.py").write_text(source[1])
    assert main(shlex.split(command[1])) == 0
    out = capsys.readouterr().out
    assert re.search(r"✓ +placement +3 cases", out)
    assert "1 of 1 law hold" in out


PLANS = (DOCS / "plans.md").read_text(encoding="utf-8")


def test_the_plan_that_is_shown_is_one(tmp_path):
    from griffin_eqx.ablation.load import load_plan
    from griffin_eqx.ablation.work_out import work_out

    (text,) = re.findall(r"^```toml\n(.*?)^```$", PLANS, re.MULTILINE | re.DOTALL)
    path = tmp_path / "shown.toml"
    path.write_text(text)
    design = work_out(load_plan(path))
    assert [cell.task for cell in design.cells] == ["induction_heads"] * 4 + ["recall"] * 4
    assert all(cell.matched is None or abs(cell.matched.mismatch) <= 0.01 for cell in design.cells)


def test_the_commands_of_the_page_on_evaluation_are_understood():
    from griffin_eqx.cli import eval as evaluation
    from griffin_eqx.cli import train
    from griffin_eqx.cli.arguments import parse
    from griffin_eqx.cli.configure import type_registry

    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in page.splitlines() if line.startswith("griffin ")]
    judged = [parse(evaluation.Eval, words[2:], prog="") for words in commands if words[1] == "eval"]
    assert [one.model for one in judged] == ["runs/first"] * 3 + ["weights/"]
    assert judged[1].data.eval_lengths == (128, 1024, 8192)
    trained = [
        parse(train.Train, train.spelt_out(words[2:]), prog="", registry=type_registry())
        for words in commands
        if words[1] == "train"
    ]
    assert [one.tree.train.init_from for one in trained] == [None, "runs/first", "weights/"]
    assert trained[2].tree.train.freeze == ("embedding", "layers.0-3", "layers.*.temporal")


def test_the_command_that_is_shown_is_understood():
    from griffin_eqx.cli.ablate import read

    (text,) = re.findall(r"^```\n(griffin ablate.*?)^```$", PLANS, re.MULTILINE | re.DOTALL)
    plan, _, chosen = read(shlex.split(text.replace("\\\n", " "))[2:])
    assert (len(plan.variants), chosen.dry_run) == (3, True)


def test_the_engine_writes_as_shown(tmp_path, monkeypatch, capsys):
    from types import SimpleNamespace

    import griffin_eqx as gx
    from griffin_eqx.config import ModelConfig
    from griffin_eqx.data import ByteTokenizer

    text = (DOCS / "sampling.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    config = ModelConfig("local_mqa[head_dim=8,window_size=4]", width=16, mlp_width=16, vocab_size=257)
    model = jax.jit(lambda: gx.LanguageModel.init(config, key=jax.random.key(0)))()
    monkeypatch.setattr(gx, "load", lambda path: SimpleNamespace(model=model, tokenizer=ByteTokenizer()))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(shown, "sampling.md", "exec"), names)
    assert [len(row) for row in names["ten"].tokens] == [100] * 10
    assert len(names["back"]) == 2
    assert capsys.readouterr().out
