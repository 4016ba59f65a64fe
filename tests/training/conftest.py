"""Small runs: width 16, a few layers, a few kilobytes of text."""

import jax
import jax.numpy as jnp
import msgspec
import pytest

from griffin_eqx.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig, dumps
from griffin_eqx.pattern import Value
from griffin_eqx.training import loop
from griffin_eqx.training.objective import TokenBatch
from griffin_eqx.training.step import CompiledStep, make_step

_COMPILED: dict[str, CompiledStep] = {}
BLOCKS: dict[str, dict[str, Value]] = {
    "rg_lru": {"gate_blocks": 2},
    "local_mqa": {"head_dim": 8, "window_size": 8},
}


@pytest.fixture(autouse=True)
def usual_promotion():
    """As users have it: Optax's schedules divide floats by integers, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def compile_once(monkeypatch):
    """Sessions of one configuration share the compiled step; other processes compile their own."""

    class Shared:
        def __init__(self, config, *, lay):
            self.config = config
            self.lay = lay

        def compile(self, *inputs):
            train = msgspec.structs.replace(self.config.train, seed=0, init_seed=None)
            places = {str(getattr(leaf, "sharding", "")) for leaf in jax.tree.leaves(inputs)}
            key = dumps(msgspec.structs.replace(self.config, train=train)) + str(sorted(places))
            if key not in _COMPILED:
                _COMPILED[key] = make_step(self.config, lay=self.lay).compile(*inputs)
            return _COMPILED[key]

    monkeypatch.setattr(loop, "make_step", Shared)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "bottles.txt"
    lines = (f"{i} bottles of {'abcdefghij'[i % 10] * 3}, take {i * 7 % 13} down.\n" for i in range(400))
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def make_config(text_file):
    """Gives a small configuration; keyword arguments override fields, whichever section they are in."""
    base = Config(
        model=ModelConfig(
            pattern="rg_lru*2 local_mqa", width=16, lru_width=16, vocab_size=257, blocks=BLOCKS
        ),
        data=DataConfig(corpus=f"file:{text_file}", seq_len=16, batch_size=4, carry_max_seq_len=4096),
        optimizer=OptimizerConfig(warmup_steps=2),
        train=TrainConfig(steps=12, log_every=1, eval_every=5, checkpoint_every=4, eval_tokens=200),
    )

    def make(**overrides):
        sections = {}
        for name in Config.__struct_fields__:
            section = getattr(base, name)
            mine = {key: overrides.pop(key) for key in section.__struct_fields__ if key in overrides}
            sections[name] = msgspec.structs.replace(section, **mine)
        assert not overrides
        return Config(**sections)

    return make


@pytest.fixture(scope="session")
def make_batch():
    def make(config, seed=0):
        shape = (config.data.batch_size, config.data.seq_len)
        tokens = jax.random.randint(jax.random.key(seed), (shape[0], shape[1] + 1), 0, 256)
        positions = jnp.broadcast_to(jnp.arange(shape[1]), shape)
        return TokenBatch(tokens[:, :-1], tokens[:, 1:], positions, jnp.full(shape[:1], shape[1]))

    return make
