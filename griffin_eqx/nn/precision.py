"""Which dtype each part of the model lives in."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from griffin_eqx.errors import ConfigError

_DTYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16, "f64": jnp.float64}
_PARTS = {"p": "param", "c": "compute", "o": "output", "s": "state"}


@dataclasses.dataclass(frozen=True)
class Policy:
    """Dtypes of parameters, computation, logits and recurrent state.

    Written `p=f32,c=bf16,o=f32,s=f32`; a part left out is `f32`. The state is never narrower than float32
    and never other than the computation promoted to it: `s` is there to be read, and to be refused.
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
            if part not in _PARTS or dtype not in _DTYPES or _PARTS[part] in chosen:
                raise ConfigError(
                    f"precision={text!r}: cannot read {item!r}.\n"
                    f"Parts are {', '.join(_PARTS)} (each once), dtypes {', '.join(_DTYPES)}; "
                    "for example p=f32,c=bf16,o=f32,s=f32."
                )
            chosen[_PARTS[part]] = _DTYPES[dtype]
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

    def __str__(self) -> str:
        names = {jnp.dtype(dtype): name for name, dtype in _DTYPES.items()}
        return ",".join(f"{k}={names[jnp.dtype(getattr(self, v))]}" for k, v in _PARTS.items())
