"""A model for lm-eval (EleutherAI's evaluation harness, extra `eval`), so that its tasks judge ours.

    import lm_eval
    from griffin_eqx.evaluation.lm_eval import GriffinLM

    lm_eval.simple_evaluate(model=GriffinLM("runs/first"), tasks=["lambada_openai"])

All that is not lm-eval's interface is in `scorer.py`. Importing this module imports lm-eval.
"""

from pathlib import Path
from typing import Any, Literal

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports] an extra of its own
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]

from griffin_eqx.errors import ConfigError
from griffin_eqx.evaluation.scorer import Scorer
from griffin_eqx.sampling import Sampling
from griffin_eqx.training.load import load

_MAX_NEW_TOKENS = 256


@register_model("griffin")
class GriffinLM(LM):
    """A run, or a folder of weights, that lm-eval asks.

    Contexts are never cut and texts never split into windows: the cache is handed on.

    Args:
      folder: As `griffin_eqx.load` takes it.
      which: As there.
      batch_size: What lm-eval passes to every model; texts are read in batches of a size of our own.
      max_batch_size: Likewise.
      device: Likewise; where it runs is JAX's choice (`JAX_PLATFORMS`).

    Raises:
      GriffinError: What `griffin_eqx.load` raises.
      ConfigError: If the model has no tokenizer.
    """

    def __init__(
        self,
        folder: str | Path,
        which: Literal["best", "last"] = "best",
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ):
        super().__init__()
        del batch_size, max_batch_size, device
        loaded = load(folder, which=which)
        if loaded.tokenizer is None:
            raise ConfigError(
                f"There is no text to ask for: this model has no tokenizer.\n  {folder}\n"
                "  Name a run of a task of text, or weights with their tokenizer beside them."
            )
        self._name = str(folder)
        self._scorer = Scorer(loaded.model, loaded.tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's cache tells models apart by."""
        return self._name.replace("/", "__")

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each continuation given its context, and whether it is what the model would write greedily."""
        found = self._scorer.continuations([one.args for one in requests])
        return self._kept("loglikelihood", requests, [(one.nats, one.greedy) for one in found])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each whole text."""
        found = self._scorer.texts([one.args[0] for one in requests])
        return self._kept("loglikelihood_rolling", requests, [one.nats for one in found])

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Writes on from each context; requests with the same settings are written together."""
        texts: list[str] = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for i, one in enumerate(requests):
            alike.setdefault(repr(sorted(one.args[1].items())), []).append(i)
        for group in alike.values():
            how = settings(requests[group[0]].args[1])
            written = self._scorer.write([requests[i].args[0] for i in group], **how)
            for i, text in zip(group, written, strict=True):
                texts[i] = text
        return self._kept("generate_until", requests, texts)

    def _kept(self, kind: str, requests: list[Instance], answers: list[Any]) -> list[Any]:
        """Hands answers to lm-eval's cache."""
        for one, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, one.args, answer)
        return answers


def settings(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What `Scorer.write` is called with for a request's settings; draws only where `do_sample` says so.

    Raises:
      ConfigError: If a setting is asked for that would be left out in silence.
    """
    rest = dict(kwargs)
    until = rest.pop("until", None) or []
    most = rest.pop("max_gen_toks", rest.pop("max_new_tokens", _MAX_NEW_TOKENS))
    draws = rest.pop("do_sample", rest.get("temperature", 0) > 0)
    temperature = float(rest.pop("temperature", 1.0)) if draws else 0.0
    top_k, top_p = rest.pop("top_k", None), rest.pop("top_p", None)
    if rest:
        raise ConfigError(
            f"generate_until: this model knows no setting {', '.join(sorted(rest))}.\n  {kwargs}\n"
            "  It knows until, max_gen_toks, do_sample, temperature, top_k and top_p."
        )
    return {
        "until": [until] if isinstance(until, str) else list(until),
        "max_new_tokens": int(most),
        "sampling": Sampling(temperature, top_k, top_p) if draws else Sampling(0.0),
    }
