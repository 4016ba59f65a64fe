"""lm-eval asks a run of ours: local tasks of each of its three kinds. `make eval-test` runs this, in an environment
of its own; what answers is tested without lm-eval in `test_scorer.py`."""

import json
import math

import jax
import pytest

from griffin_eqx.training.load import load
from griffin_eqx.training.loop import train

pytestmark = pytest.mark.lm_eval

ROWS = [{"question": "To be or not to", "choices": ["be", "bee", "sea"], "answer": 0, "text": "To be."}] * 2
COMMON = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {file}\ntest_split: test\n"
TASKS = {
    "choose": 'output_type: multiple_choice\ndoc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\n'
    "doc_to_target: answer\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "roll": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
    "metric_list:\n  - metric: bits_per_byte\n",
    "write": 'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{text}}"\n'
    "generation_kwargs:\n  until: ['.']\n  max_gen_toks: 6\n  do_sample: false\n"
    "metric_list:\n  - metric: exact_match\n",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, make_config):
    path = tmp_path_factory.mktemp("runs") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train(make_config(pattern="rg_lru", steps=2), run_dir=path, quiet=True)
    return path


@pytest.mark.filterwarnings("default")  # those of lm-eval and what it imports are its own
def test_local_tasks_of_every_kind(run_dir, tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    from griffin_eqx.evaluation.lm_eval import GriffinLM
    from griffin_eqx.evaluation.scorer import Scorer

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, body in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n" + COMMON.format(file=rows) + body)
    answer = lm_eval.simple_evaluate(
        model=GriffinLM(run_dir),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    assert answer is not None
    found = answer["results"]
    loaded = load(run_dir)
    assert loaded.tokenizer is not None
    asks = Scorer(loaded.model, loaded.tokenizer)
    chosen = [
        one.nats for one in asks.continuations([(ROWS[0]["question"], " " + c) for c in ROWS[0]["choices"]])
    ]
    assert found["choose"]["acc,none"] == float(max(chosen) == chosen[0])
    bits = -asks.texts(["To be."])[0].nats / math.log(2) / len("To be.")
    assert found["roll"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-6)
    assert found["write"]["exact_match,none"] == 0.0
