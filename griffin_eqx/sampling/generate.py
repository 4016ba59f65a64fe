"""Continues prompts in one call."""

from collections.abc import Sequence
from typing import Any

from griffin_eqx.mesh import MeshShape
from griffin_eqx.model import LanguageModel
from griffin_eqx.sampling.engine import Engine
from griffin_eqx.sampling.prompts import as_rows
from griffin_eqx.sampling.samplers import Sampling


def generate(
    model: LanguageModel | Engine,
    prompts: Any,
    *,
    max_new_tokens: int = 256,
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | int | None = None,
    min_p: float | int | None = None,
    repetition_penalty: float | int | None = None,
    stop: int | Sequence[int] | None = None,
    seed: int | Sequence[int] = 0,
    mesh: MeshShape | None = None,
) -> list[list[int]]:
    """Continues each prompt by sampling from the model.

    A prompt's continuation does not depend on its neighbours: row i is what that prompt gives alone with
    `seed + i`. For log-probabilities, streaming, beams, forks, or to go on later, there is `griffin_eqx.Engine`.

    Args:
      model: The model; or an engine, which keeps what it has laid out from call to call.
      prompts: Token ids, at least one a prompt, of any lengths; a document begins with the tokenizer's
        `document`.
      max_new_tokens: Tokens to write at most.
      temperature: Logits are divided by it; 0 always takes the likeliest token.
      top_k: Draw only among this many likeliest tokens; among all when None.
      top_p: Draw only among the fewest likeliest tokens that have this probability together.
      min_p: Draw only among tokens at least this many times as likely as the likeliest.
      repetition_penalty: Above 1 avoids what the text has already, the prompt included.
      stop: The token or tokens that end a continuation; they are not part of the answer.
      seed: Of the draws: one a prompt, or a number that is counted up.
      mesh: The devices to write on, as a mesh, such as `parse_mesh("data=2,model=4")`. An engine has its own.

    Returns:
      The new tokens of each prompt, the prompt itself left out.

    Raises:
      ValueError: If a prompt is empty or holds an id outside of the vocabulary, a number is out of range, or an
        engine is given a mesh.
      MeshError: If there are not as many devices, or the mesh cannot divide the model or the prompts.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    vocab_size = (model.model if isinstance(model, Engine) else model).embedding.vocab_size
    rows = as_rows(prompts, vocab_size=vocab_size)
    if max_new_tokens < 0:
        raise ValueError(f"{max_new_tokens=} must not be negative.")
    if not rows or max_new_tokens == 0:
        return [[] for _ in rows]
    if isinstance(model, Engine) and mesh is not None:
        raise ValueError(f"{mesh=} is for a model; an engine is given its mesh when it is made.")
    engine = model if isinstance(model, Engine) else Engine(model, mesh=mesh)
    engine.check_rows(len(rows))
    session = engine.start(rows, room=max_new_tokens)
    return engine.write(session, max_new_tokens, sampling, stop=stop, seed=seed).tokens
