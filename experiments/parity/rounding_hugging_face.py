"""Hugging Face's program in bfloat16, with some of its operations in float32.

A layer in float32 is that layer with its weights widened; where one method holds several operations, the method is
written again here.
"""

import copy
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import numpy as np
import operations
import references
import torch
from transformers.models.recurrent_gemma import modeling_recurrent_gemma as hf

XP = SimpleNamespace(
    sigmoid=torch.sigmoid,
    softplus=torch.nn.functional.softplus,
    exp=torch.exp,
    sqrt=torch.sqrt,
    where=torch.where,
)


def logits(net: Any, model: references.Model, wide: Collection[str] | None) -> np.ndarray:
    """What the program makes of the model; untouched where `wide` is None."""
    tokens = torch.from_numpy(references.tokens_of(model)).long()[None]
    if wide is not None:
        net = copy.deepcopy(net)
        _patch(net, wide)
    with torch.no_grad():
        return net(tokens, use_cache=False).logits[0].float().numpy()


def with_frequencies(net: Any) -> Any:
    """The model with RoPE's constants in float32, which `net.to(torch.bfloat16)` rounds as if they were weights."""
    for module in net.modules():
        if isinstance(module, hf.RecurrentGemmaRotaryEmbedding):
            module.inv_freq, _ = module.compute_default_rope_parameters(module.config)
    return net


def _patch(net: Any, wide: Collection[str]) -> None:
    def take(operation, *arrays):
        dtype = torch.float32 if operation in wide else torch.bfloat16
        return tuple(z.to(dtype) for z in arrays)

    def whole(operation):
        return lambda _, args: take(operation, *args)

    def layer(m, hidden, position_ids, attention_mask, *_, **__):
        mixed, _ = m.temporal_block(
            m.temporal_pre_norm(hidden),
            position_ids=position_ids,
            attention_mask=attention_mask,
            use_cache=False,
        )
        mixed, hidden = take("residual", mixed, hidden)
        hidden = mixed + hidden
        mixed, hidden = take("residual", m.mlp_block(m.channel_pre_norm(hidden)), hidden)
        return mixed + hidden

    def recurrent_block(m, hidden, position_ids, **_):
        y, x = m.linear_y(hidden), m.linear_x(hidden).transpose(1, 2)
        x = m.rg_lru(m.conv_1d(x)[..., : hidden.shape[1]].transpose(1, 2), position_ids)
        x, y = take("GeLU", x, y)
        return m.linear_out(x * m.act_fn(y)), None

    def rg_lru(m, x, position_ids):
        reset = position_ids[:, :, None] == 0
        blocks = m.num_attention_heads, m.block_width

        def gate(weight, bias):
            def product(u):
                rows = u.reshape(-1, *blocks).permute(1, 0, 2)
                y = torch.baddbmm(bias[:, None].to(u.dtype), rows, weight.to(u.dtype))
                return y.transpose(0, 1).reshape(u.shape)

            return product

        gates = (
            gate(m.recurrent_gate_weight, m.recurrent_gate_bias),
            gate(m.input_gate_weight, m.input_gate_bias),
        )
        a, x = operations.rg_lru(take, XP, x, gates, m.recurrent_param, reset)
        dtype = torch.promote_types(a.dtype, x.dtype)
        return m._rnn_scan(x.to(dtype), a.to(dtype), reset, None)[0]

    def mlp(m, x):
        gate, up = take("GeLU", m.gate_proj(x), m.up_proj(x))
        return m.down_proj(m.act_fn(gate) * up)

    def attention(m, x, position_ids, attention_mask, **_):
        shape = (*x.shape[:-1], -1, m.head_dim)
        q, k, v = (project(x).view(shape).transpose(1, 2) for project in (m.q_proj, m.k_proj, m.v_proj))
        q, k = take("rotation", q, k)
        q, k = hf.apply_rotary_pos_emb(q, k, *m.rotary_emb(q, position_ids))
        q, k, v = take("attention", q, k, v)
        attend = hf.ALL_ATTENTION_FUNCTIONS.get_interface(
            m.config._attn_implementation, hf.eager_attention_forward
        )
        window = {"scaling": m.scaling, "sliding_window": m.sliding_window}
        mixed, weights = attend(m, q, k, v, attention_mask, dropout=0.0, **window)
        return m.o_proj(mixed.reshape(*x.shape[:-1], -1)), weights

    if "frequencies" in wide:
        with_frequencies(net)
    net.lm_head = copy.deepcopy(net.lm_head)  # else widened with the embedding that it is tied to
    net.model.embed_tokens.register_forward_hook(lambda _, __, x: take("embedding", x)[0])
    written_again = {
        hf.RecurrentGemmaDecoderLayer: layer,
        hf.RecurrentGemmaRecurrentBlock: recurrent_block,
        hf.RecurrentGemmaRglru: rg_lru,
        hf.RecurrentGemmaMlp: mlp,
        hf.RecurrentGemmaAttention: attention,
    }
    layers = {
        torch.nn.Linear: "products",
        torch.nn.Conv1d: "convolution",
        hf.RecurrentGemmaRMSNorm: "norms",
    }
    for module in net.modules():
        if forward := written_again.get(type(module)):
            module.forward = forward.__get__(module)
        if operation := "logits" if module is net.lm_head else layers.get(type(module)):
            module.to(torch.float32 if operation in wide else torch.bfloat16)
            module.register_forward_pre_hook(whole(operation))
