"""Random patterns and models of the shipped blocks, sizes that fit each other."""

from hypothesis import strategies as st

from griffin_eqx.config import Config, DataConfig, ModelConfig, TrainConfig

BLOCKS = {
    "rg_lru": ["", "[gate_blocks=2]", "[gate_blocks=8,conv_width=2]", "[mlp=none,gate_blocks=4]"],
    "cg_lru": ["[gate_blocks=2]", "[gate_blocks=4,mlp=none]"],
    "local_mqa": ["[head_dim=16]", "[head_dim=8,window_size=20]", "[head_dim=32,kv_heads=1,window_size=7]"],
    "global_mqa": ["[head_dim=16]", "[head_dim=8,kv_heads=2]", "[head_dim=16,mlp=none]"],
}

layers = st.sampled_from([name + options for name, variants in BLOCKS.items() for options in variants])
units = st.lists(layers, min_size=1, max_size=3).map(" ".join)


@st.composite
def patterns(draw):
    """One to twelve layers, most of them repeated, ending in a count as often as not."""
    unit = draw(units)
    tail = draw(st.sampled_from(["", "", f" {draw(layers)}"]))
    return f"({unit}){draw(st.sampled_from(['@', '*']))}{draw(st.integers(1, 4))}{tail}"


def config_of(pattern, *, width=64, lru_width=None, mlp_width=None, seq_len=24, biases=False, **train):
    """A model whose widths every layer of `patterns` accepts."""
    model = ModelConfig(
        pattern=pattern,
        width=width,
        lru_width=lru_width,
        mlp_width=mlp_width,
        vocab_size=37,
        biases=biases,
    )
    return Config(model=model, data=DataConfig(seq_len=seq_len, batch_size=2), train=TrainConfig(**train))


@st.composite
def configs(draw):
    """Any such model."""
    return config_of(
        draw(patterns()),
        width=32 * draw(st.integers(1, 4)),
        lru_width=draw(st.sampled_from([None, 32, 96])),
        mlp_width=draw(st.sampled_from([None, 1, 50])),
        seq_len=draw(st.sampled_from([1, 8, 24, 50])),
        biases=draw(st.booleans()),
        precision=draw(st.sampled_from(["c=f32", "c=bf16", "p=bf16,c=bf16"])),
    )
