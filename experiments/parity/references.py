"""The two reference programs on one model: what Hugging Face's `transformers` and DeepMind's `recurrentgemma` compute.

Nothing of griffin_eqx is used here. Weights are drawn by name from a generator whose numbers never change, so that the
same model can be made again where neither program is installed.
"""

import hashlib
import warnings
from typing import Any, NamedTuple

import numpy as np

warnings.filterwarnings("ignore")


class Model(NamedTuple):
    """A model in Hugging Face's words, less those that never change; `cap=0` and `scale=False` are DeepMind's alone."""

    name: str
    kinds: str  # R and A, a letter a layer
    width: int
    lru_width: int
    heads: int
    mlp_width: int
    vocab_size: int
    window: int
    cap: float = 30.0
    kv_heads: int = 1
    conv_width: int = 4
    scale: bool = True
    length: int = 24
    seed: int = 0  # another draw of the same model
    fresh: bool = False  # weights as the program itself starts with, in place of `draw`

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


class Outcome(NamedTuple):
    """What a program made of a model: arrays by layer or by the program's own names of tensors."""

    shapes: dict[str, tuple[int, ...]]
    logits: np.ndarray
    blocks: list[np.ndarray]
    gradients: dict[str, np.ndarray]
    greedy: list[int]


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The weight of that name: as large as such weights are, and every one different."""
    digest = hashlib.sha256((f"{seed} {name}" if seed else name).encode()).digest()
    stream = np.random.RandomState(int.from_bytes(digest[:4], "big"))  # one that is frozen
    normal = stream.standard_normal(shape).astype(np.float32)
    if name.endswith(("recurrent_param", "a_param")):
        return normal - 5  # decays between 0.95 and 0.998
    if "conv_1d" in name:
        return normal * np.float32(0.4)
    if "norm" in name or name.endswith(("bias", "_bias", ".b", "/b")):
        return normal * np.float32(0.2)
    fan_in = {2: shape[-1], 3: shape[-2]}.get(len(shape), 8)
    if name.endswith("kernel"):
        fan_in = shape[0]
    return normal * np.float32(1.5 / fan_in**0.5)


def tokens_of(model: Model) -> np.ndarray:
    """A row of tokens; never 0, whose embedding Hugging Face does not train where it is the padding."""
    return np.random.RandomState(7).randint(1, model.vocab_size, model.length).astype(np.int32)


def hugging_face_config(model: Model) -> dict[str, Any]:
    """The keys of its config.json."""
    return {
        "model_type": "recurrent_gemma",
        "num_hidden_layers": len(model.kinds),
        "vocab_size": model.vocab_size,
        "hidden_size": model.width,
        "intermediate_size": 2 * model.mlp_width,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "lru_width": model.lru_width,
        "attention_window_size": model.window,
        "conv1d_width": model.conv_width,
        "logits_soft_cap": model.cap,
        "block_types": ["recurrent" if kind == "R" else "attention" for kind in model.kinds],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
        "pad_token_id": None,
        "eos_token_id": None,
    }


def hugging_face_net(model: Model, dtype: str) -> Any:
    """The model in `transformers`; `rounded` are weights of bfloat16, computed with in float32."""
    import torch
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    torch.manual_seed(model.seed)
    net = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**hugging_face_config(model)))
    if not model.fresh:
        shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if k != "lm_head.weight"}
        drawn = {name: torch.from_numpy(draw(name, shape, model.seed)) for name, shape in shapes.items()}
        net.load_state_dict(drawn, strict=False)
        net.tie_weights()
    return (net.to(torch.bfloat16).float() if dtype == "rounded" else net.to(getattr(torch, dtype))).eval()


def hugging_face(model: Model, dtype: str, new_tokens: int, folder: str) -> Outcome:
    """Runs `transformers`, and leaves the folder that its `save_pretrained` writes."""
    import torch

    net = hugging_face_net(model, dtype)
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if k != "lm_head.weight"}
    net.save_pretrained(folder)
    tokens = torch.from_numpy(tokens_of(model)).long()[None]
    out = net(tokens, output_hidden_states=True, use_cache=False)
    nll = torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), tokens[0, 1:])
    nll.backward()
    gradients = {k: v.grad.float().numpy() for k, v in net.named_parameters() if k in shapes}
    # The last of its hidden states is the output of the final norm, the others go into the layers.
    blocks = [h[0].detach().float().numpy() for h in out.hidden_states[:-1]]
    with torch.no_grad():
        written = tokens[:, :5]
        if "A" in model.kinds:
            written = net.generate(written, do_sample=False, max_new_tokens=new_tokens)
        else:  # its cache cannot tell its length without a layer of attention: no decoding there
            for _ in range(new_tokens):
                step = net(written, use_cache=False).logits[:, -1].argmax(-1)
                written = torch.cat([written, step[:, None]], 1)
        written = written[0, 5:].tolist()
    return Outcome(shapes, out.logits[0].detach().float().numpy(), blocks, gradients, written)


def hugging_face_folder(model: Model, folder: Any) -> None:
    """Leaves the folder that `save_pretrained` writes, in float32."""
    hugging_face_net(model, "float32").save_pretrained(folder)


def griffin_config(model: Model) -> Any:
    """DeepMind's configuration; its window of W shows W+1 keys."""
    from recurrentgemma import common

    kinds, scans = common.TemporalBlockType, common.ScanType
    return common.GriffinConfig(
        vocab_size=model.vocab_size,
        width=model.width,
        mlp_expanded_width=model.mlp_width,
        num_heads=model.heads,
        lru_width=model.lru_width,
        block_types=tuple(kinds.RECURRENT if kind == "R" else kinds.ATTENTION for kind in model.kinds),
        embeddings_scale_by_sqrt_dim=model.scale,
        attention_window_size=model.window,
        logits_soft_cap=model.cap,
        # Its usual scan on a CPU is 128 steps written out, which takes minutes to compile twice for each layer.
        scan_type=scans.ASSOCIATIVE_NATIVE if model.length > 16 else scans.AUTO,
    )


def deepmind_net(model: Model, dtype: str) -> tuple[Any, Any]:
    """The Flax module and its parameters; `rounded` are weights of bfloat16, computed with in float32."""
    import jax
    import jax.numpy as jnp
    from recurrentgemma import jax as rg

    net = rg.Griffin(griffin_config(model), gradient_checkpointing=False)
    inputs = jnp.asarray(tokens_of(model))[None], jnp.arange(model.length)[None]
    init = jax.jit(net.init) if model.fresh else lambda *given: jax.eval_shape(net.init, *given)
    params = init(jax.random.key(model.seed), *inputs)["params"]
    leaves = jax.tree.leaves(params)
    if not model.fresh:
        shapes = zip(_names(params), (leaf.shape for leaf in leaves), strict=True)
        leaves = [jnp.asarray(draw(name, shape, model.seed)) for name, shape in shapes]
    leaves = [leaf.astype(jnp.bfloat16 if dtype == "rounded" else dtype) for leaf in leaves]
    leaves = [leaf.astype(jnp.float32) for leaf in leaves] if dtype == "rounded" else leaves
    return net, jax.tree.unflatten(jax.tree.structure(params), leaves)


def _names(params: Any) -> list[str]:
    import jax

    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return ["/".join(key.key for key in path) for path in paths]


def deepmind(model: Model, dtype: str, new_tokens: int, folder: str) -> tuple[Outcome, Any]:
    """Runs the Flax program; its parameters too, and the folder that its `save_parameters` writes."""
    import jax
    import jax.numpy as jnp
    from recurrentgemma.jax import modules, utils

    net, params = deepmind_net(model, dtype)
    tokens, positions = jnp.asarray(tokens_of(model))[None], jnp.arange(model.length)[None]
    names = _names(params)
    shapes = {name: leaf.shape for name, leaf in zip(names, jax.tree.leaves(params), strict=True)}
    utils.save_parameters(folder, params)

    def forward(params):
        (logits, _), kept = net.apply(
            {"params": params},
            tokens,
            positions,
            None,
            True,
            False,
            mutable=["intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, modules.ResidualBlock),
        )
        steps = jax.nn.log_softmax(logits[0, :-1].astype(jnp.float32))
        nll = -jnp.take_along_axis(steps, tokens[0, 1:, None], 1).mean()
        inner = [kept["intermediates"][f"blocks.{i}"]["__call__"][0][0][0] for i in range(len(model.kinds))]
        return nll, (logits[0], inner)

    gradients, (logits, blocks) = jax.jit(jax.grad(forward, has_aux=True))(params)
    by_name = dict(zip(names, map(_wide, jax.tree.leaves(gradients)), strict=True))
    return Outcome(
        shapes,
        _wide(logits),
        [_wide(b) for b in blocks],
        by_name,
        _greedy(net, params, tokens[:, :5], new_tokens),
    ), params


def _greedy(net, params, prompt, new_tokens) -> list[int]:
    import jax
    import jax.numpy as jnp

    step = jax.jit(lambda p, t, pos, cache: net.apply({"params": p}, t, pos, cache))
    logits, cache = net.apply({"params": params}, prompt, jnp.arange(prompt.shape[1])[None])
    written = []
    for turn in range(new_tokens):
        token = jnp.argmax(logits[:, -1], -1)[:, None]
        written.append(int(token[0, 0]))
        logits, cache = step(params, token, jnp.full((1, 1), prompt.shape[1] + turn), cache)
    return written


def deepmind_torch(model: Model) -> tuple[dict[str, tuple[int, ...]], dict[str, Any], np.ndarray]:
    """DeepMind's torch program: shapes, state dict, logits; weights drawn by its own names."""
    import torch
    from recurrentgemma import torch as rg

    net = rg.Griffin(griffin_config(model), device="cpu", dtype=torch.float32)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    net.load_state_dict(
        {name: torch.from_numpy(draw(name, shape, model.seed)) for name, shape in shapes.items()}
    )
    tokens = torch.from_numpy(tokens_of(model)).long()[None]
    with torch.no_grad():
        logits, _ = net(tokens, torch.arange(model.length)[None])
    return shapes, net.state_dict(), logits[0].numpy()


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array.astype("float32"))
