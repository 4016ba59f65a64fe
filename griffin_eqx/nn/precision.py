"""Which dtype each part of the model lives in."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from griffin_eqx.errors import ConfigError

_DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16, "f64": jnp.float64}
_PARAM_DTYPES = {**_DTYPES, "int8": jnp.int8}
_PARTS = {"p": "param", "c": "compute", "o": "output", "s": "state"}


@dataclasses.dataclass(frozen=True)
class Policy:
    """Dtypes of parameters, computation, logits and recurrent state.

    Written `p=f32,c=bf16,o=f32,s=f32`; a part left out is `f32`. The state is never narrower than float32
    and never other than the computation promoted to it: `s` is there to be read, and to be refused.

    Parameters may be `int8` in a model that is not trained: the matrices of `Linear` and `Embedding` are then an
    `Int8Matrix` each, and the rest (norms, biases, convolutions, gates and decays, a few percent) is float32.
    """

    param: Any = jnp.float32
    compute: Any = jnp.float32
    output: Any = jnp.float32
    state: Any = jnp.float32

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Reads the string form.

        Raises:
          ConfigError: If a part or dtype is unknown, named twice, or the state would be too narrow.
        """
        chosen: dict[str, Any] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            part, _, dtype = item.partition("=")
            known = _PARAM_DTYPES if part == "p" else _DTYPES
            if part not in _PARTS or dtype not in known or _PARTS[part] in chosen:
                raise ConfigError(
                    f"precision={text!r}: cannot read {item!r}.\n"
                    f"Parts are {', '.join(_PARTS)} (each once), dtypes {', '.join(_DTYPES)}, and int8 for p; "
                    "for example p=f32,c=bf16,o=f32,s=f32."
                )
            chosen[_PARTS[part]] = known[dtype]
        policy = cls(**chosen)
        needed = np.promote_types(policy.compute, jnp.float32)
        if "state" not in chosen:
            policy = dataclasses.replace(policy, state=needed)
        if policy.state != needed:
            raise ConfigError(
                f"precision={text!r}: the recurrent state is computed in {needed} here, not in "
                f"{jnp.dtype(policy.state)}.\nA narrower state forgets long before its decay says. Leave s out."
            )
        return policy

    @property
    def is_int8(self) -> bool:
        """Whether matrices are of 8 bits."""
        return jnp.dtype(self.param) == jnp.int8

    @property
    def drawn(self) -> Any:
        """The dtype that parameters are drawn in, and that those keep that are no matrix of 8 bits."""
        return jnp.float32 if self.is_int8 else self.param

    def __str__(self) -> str:
        names = {jnp.dtype(dtype): name for name, dtype in _PARAM_DTYPES.items()}
        return ",".join(f"{k}={names[jnp.dtype(getattr(self, v))]}" for k, v in _PARTS.items())
