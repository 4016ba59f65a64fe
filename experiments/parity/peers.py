"""The same reading and writing in ours and in the two reference programs, in turns in one run (`make peers`).

Griffin of 100 million parameters with one set of random weights, float32: a prompt of 1,024 tokens a row, then 64 more,
greedily. Each program works as its users have it: ours by `Engine`, DeepMind's by the compiled steps of its sampler
(with its associative scan: its usual one takes minutes to compile), Hugging Face's by `generate`. The first round is
not counted and has all compiling in it. Beside them streams a matrix-vector product: no program can decode quicker
than it reads the weights.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import references

import griffin_eqx as gx
from griffin_eqx import interop
from griffin_eqx.benchmark.bandwidth import streaming_products
from griffin_eqx.benchmark.decode import cache_bytes, weight_bytes

MODEL = references.Model("griffin-100m", "RRA" * 4, 768, 1024, 8, 2304, 32_000, 1023)
"""Eight heads, and not the preset's six: both others cut the gates into as many blocks, and 6 does not divide 1,024."""
PROMPT, NEW = 1024, 64
RESULTS = Path(__file__).parent / "PEERS.md"

Program = tuple[Callable[[np.ndarray], Any], Callable[[Any], Any]]
"""Reads prompts, and writes `NEW` tokens a row from what it left; each returns when its result is there."""


def ours(folder: Path) -> tuple[gx.LanguageModel, Program]:
    model = gx.load(folder, decoding=True).model
    engine, greedy = gx.Engine(model), gx.Sampling(temperature=0)

    def read(prompts: np.ndarray) -> Any:
        session = engine.start(list(prompts), room=NEW)
        session.state.logits.block_until_ready()
        return session

    return model, (read, lambda session: engine.write(session, NEW, greedy).tokens)


def deepmind(params: Any) -> Program:
    from recurrentgemma import jax as rg

    net = rg.Griffin(references.griffin_config(MODEL), gradient_checkpointing=False)

    @jax.jit
    def prefill(params, tokens):
        positions = jnp.broadcast_to(jnp.arange(PROMPT), tokens.shape)
        parts = (tokens[:, :-1], positions[:, :-1]), (tokens[:, -1:], positions[:, -1:])
        _, cache = net.apply({"params": params}, *parts[0], None, return_logits=False)
        logits, cache = net.apply({"params": params}, *parts[1], cache)
        return jnp.argmax(logits[:, -1], -1), cache

    @jax.jit
    def decode(params, token, cache):
        def step(carry, turn):
            token, cache = carry
            positions = jnp.full((token.shape[0], 1), PROMPT) + turn
            logits, cache = net.apply({"params": params}, token[:, None], positions, cache)
            return (jnp.argmax(logits[:, -1], -1), cache), token

        return jax.lax.scan(step, (token, cache), jnp.arange(NEW))[1].T

    return (
        lambda prompts: jax.block_until_ready(prefill(params, jnp.asarray(prompts))),
        lambda state: np.asarray(decode(params, *state)).tolist(),
    )


def hugging_face(folder: Path) -> Program:
    """Its `generate` reads again what it is given, so that its reading is timed apart and taken off."""
    import torch
    from transformers import RecurrentGemmaForCausalLM

    net = RecurrentGemmaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def generate(prompts: np.ndarray, count: int) -> Any:
        return net.generate(torch.from_numpy(prompts).long(), do_sample=False, max_new_tokens=count)

    def read(prompts: np.ndarray) -> Any:
        generate(prompts, 1)
        return prompts

    return read, lambda prompts: generate(prompts, NEW + 1)[:, PROMPT : PROMPT + NEW].tolist()


def params_of(folder: Path) -> Any:
    """DeepMind's parameters of the same weights."""
    loaded = gx.load(folder)
    return jax.tree.map(jnp.asarray, interop.to_flax(loaded.model, loaded.config)["params"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as here:
        theirs, mine = Path(here) / "hf", Path(here) / "ours"
        references.hugging_face_folder(MODEL, theirs)
        interop.convert(theirs, mine, to="griffin", window="trained")
        model, engine = ours(mine)
        programs: dict[str, Program] = {
            "griffin_eqx": engine,
            "DeepMind Flax": deepmind(params_of(mine)),
            "Hugging Face": hugging_face(theirs),
        }
        streamed, products = streaming_products(jnp.float32)
        samples: dict[Any, list[float]] = {}
        same: dict[str, list[bool]] = {}  # of each text, whether a program wrote what ours did
        for turn in range(given.rounds + 1):
            for name, run in products.items():
                samples.setdefault(name, []).append(_seconds(run)[0])
            for batch in given.batches:
                prompts = (
                    np.random.RandomState(0).randint(1, MODEL.vocab_size, (batch, PROMPT)).astype(np.int32)
                )
                texts = {}
                for name, (read, write) in programs.items():
                    reading, state = _seconds(lambda read=read, prompts=prompts: read(prompts))
                    writing, texts[name] = _seconds(lambda write=write, state=state: write(state))
                    if name == "Hugging Face":
                        writing -= reading
                    samples.setdefault((name, batch, "read"), []).append(reading)
                    samples.setdefault((name, batch, "write"), []).append(writing)
                    print(turn, name, batch, f"read {reading:.2f} s, write {writing:.2f} s", flush=True)
                for name, written in texts.items():
                    pairs = zip(written, texts["griffin_eqx"], strict=True)
                    same.setdefault(name, []).extend(text == mine for text, mine in pairs)
    bandwidth = max(streamed / statistics.median(samples[name][1:]) for name in products)
    lines = [_HEAD.format(bandwidth=bandwidth / 1e9, rounds=given.rounds)]
    for batch in given.batches:
        limit = (weight_bytes(model) + batch * cache_bytes(model, PROMPT + NEW)) / bandwidth
        times = {
            (name, part): statistics.median(samples[name, batch, part][1:])
            for name in programs
            for part in ("read", "write")
        }
        best = {part: min(times[name, part] for name in list(programs)[1:]) for part in ("read", "write")}
        for name in programs:
            read, write = times[name, "read"], times[name, "write"]
            first = samples[name, batch, "read"][0] + samples[name, batch, "write"][0]
            lines.append(
                f"| {batch} | {name} | {read:.2f} | {best['read'] / read:.2f} | {batch * NEW / write:.0f} "
                f"| {best['write'] / write:.2f} | {limit * NEW / write:.2f} | {first:.0f} |"
            )
    lines.append("")
    for name in list(programs)[1:]:
        lines.append(f"{name} wrote our {NEW} tokens in {sum(same[name])} of {len(same[name])} rows.")
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


_HEAD = """# Speed beside the two programs

One run of `make peers`: the size of griffin-100m with 8 heads, vocabulary 32,000, float32, {rounds} rounds in
turns, medians; in the same rounds a streaming matrix-vector product read {bandwidth:.1f} GB/s. *Of the best*: the time
of the quicker of the two other programs over this one's. *Of the limit*: the time to read weights and caches once
at that rate, over a step's.
*First*: the round before, with all that is compiled in it.

| rows | program | read 1,024 tokens, s | of the best | write, tokens/s | of the best | of the limit | first, s |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def _seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
