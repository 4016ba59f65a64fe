"""One function, several implementations: chosen by name, or by the platform that a program is lowered for.

The choice waits until lowering, so that a program traced on a laptop can be exported for a TPU, and tracing never
pays for kernels that another platform would run.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

PLATFORMS = ("cpu", "tpu", "cuda", "rocm")


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Attributes:
      run: Takes the operation's arguments, and `interpret` as well if `interpretable`.
      platforms: Where it runs; everywhere if empty.
      interpretable: Whether it is made of Pallas kernels, which interpreters run anywhere.
      refuses: Says why it cannot compute these arguments (their shapes and dtypes), or "" if it can.
      slower: Says why the next one computes these arguments faster, or "". Whoever names this one gets it.
    """

    run: Callable[..., Any]
    platforms: tuple[str, ...] = ()
    interpretable: bool = False
    refuses: Callable[..., str] = lambda *arguments, **options: ""
    slower: Callable[..., str] = lambda *arguments, **options: ""


@dataclass(frozen=True)
class Choice:
    """An implementation chosen for a platform, and why.

    Attributes:
      name: Of the implementation.
      reason: One clause in words.
    """

    name: str
    reason: str


def varying_alike(*trees: Any) -> Any:
    """Arrays with one type in the body of a `jax.shard_map`: varying over all mesh axes that one of them varies over.

    Loops ask for it of what they carry. It changes nothing elsewhere; its transpose sums over those axes.
    """
    over = frozenset[str]().union(*(jax.typeof(z).manual_axis_type.varying for z in jax.tree.leaves(trees)))

    def alike(z):
        missing = tuple(sorted(over - jax.typeof(z).manual_axis_type.varying))
        return jax.lax.pcast(z, missing, to="varying") if missing else z

    return jax.tree.map(alike, trees)


def array_like(like: Any, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An output of a `pallas_call` that varies over the mesh axes that the leaves of `like` vary over."""
    varying = jax.typeof(jax.tree.leaves(like)[0]).manual_axis_type
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=varying)


class Operation:
    """A function of arrays `[*batch, ...]` that `jax.vmap` gives one more leading batch axis.

    It has no derivative of its own: a `jax.custom_vjp` stands around it.
    """

    def __init__(
        self,
        name: str,
        implementations: Mapping[str, Implementation],
        preferred: Mapping[str, tuple[str, ...]],
        outputs: Callable[..., Any],
        *,
        shared: tuple[int, ...] = (),
        sums: bool = False,
    ):
        """Makes the operation.

        Args:
          name: Of the primitive, as it stands in a jaxpr.
          implementations: By name.
          preferred: For a platform the names to try, best first; the entry "" is for all other platforms and
            ends with one that refuses nothing.
          outputs: Takes the arguments and gives for each output the argument whose shape and dtype it has.
          shared: Positions of arguments without batch axes: all rows of a batch have them in common.
          sums: Whether an output is a sum over all batch axes, as the cotangent of what rows share.
        """
        self.name = name
        self.implementations = implementations
        self.preferred = preferred
        self._primitive = Primitive(name)
        self._primitive.multiple_results = True
        self._primitive.def_impl(lambda *leaves, **static: self._jitted(**static)(*leaves))
        self._primitive.def_abstract_eval(
            lambda *avals, tree, **_: jax.tree.leaves(outputs(*jax.tree.unflatten(tree, avals)))
        )
        self._outputs = outputs
        self._shared, self._sums = shared, sums
        batching.primitive_batchers[self._primitive] = self._batch
        for platform in PLATFORMS:
            rule = mlir.lower_fun(functools.partial(self._lowered, platform), multiple_results=True)
            mlir.register_lowering(self._primitive, rule, platform=platform)

    def __call__(
        self, *arguments: Any, implementation: str | None = None, interpret: Any = False, **options: Any
    ) -> Any:
        """Computes the operation.

        Args:
          arguments: PyTrees of arrays; None is an empty tree.
          implementation: That one runs or raises; None chooses by platform.
          interpret: Given to `pallas_call`: True, or the parameters of the TPU interpreter.
          options: Hashable; part of the program.
        """
        arguments = varying_alike(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        results = self._primitive.bind(
            *leaves,
            tree=tree,
            implementation=implementation,
            interpret=interpret,
            options=tuple(sorted(options.items())),
        )
        return jax.tree.unflatten(jax.tree.structure(self._outputs(*arguments)), results)

    def running_on(self, platform: str) -> tuple[str, ...]:
        """The names of the implementations that a platform runs."""
        return tuple(
            name
            for name, implementation in self.implementations.items()
            if not implementation.platforms or platform in implementation.platforms
        )

    def choose(self, platform: str, *arguments: Any, **options: Any) -> Choice:
        """The implementation that runs where none is named."""
        passed = []
        for name in self.preferred.get(platform, self.preferred[""]):
            implementation = self.implementations[name]
            if refusal := implementation.refuses(*arguments, **options):
                passed.append(f"{name} refuses: {refusal}")
            elif reason := implementation.slower(*arguments, **options):
                passed.append(f"{name} is slower: {reason}")
            else:
                because = "; ".join(passed) or f"the first choice on {platform}"
                return Choice(name, because)
        raise NotImplementedError(f"{self.name} has no implementation for {platform}: {'; '.join(passed)}.")

    def _lowered(self, platform, *leaves, tree, implementation, interpret, options):
        arguments, options = jax.tree.unflatten(tree, leaves), dict(options)
        name = implementation or self.choose(platform, *arguments, **options).name
        chosen = self.implementations[name]
        if refusal := chosen.refuses(*arguments, **options):
            raise NotImplementedError(
                f"{self.name}: implementation={name!r} cannot run this: {refusal}. "
                "Leave implementation out to let the platform choose."
            )
        if chosen.interpretable:
            options["interpret"] = interpret
        if chosen.platforms and platform not in chosen.platforms and not (chosen.interpretable and interpret):
            raise NotImplementedError(
                f"{self.name}: implementation={name!r} runs on {' and '.join(chosen.platforms)}, and this program is "
                f"lowered for {platform}. Pass interpret=True to try its values here, slowly, or leave "
                "implementation out."
            )
        results = chosen.run(*arguments, **options)
        promised = self._outputs(*arguments)
        for got, like in zip(jax.tree.leaves(results), jax.tree.leaves(promised), strict=True):
            if (got.shape, got.dtype) != (like.shape, like.dtype):
                raise TypeError(
                    f"{self.name}: implementation={name!r} returned {got.dtype}{list(got.shape)} where "
                    f"{like.dtype}{list(like.shape)} was promised."
                )
        return jax.tree.leaves(results)

    def _batch(self, leaves, axes, **static):
        arguments = jax.tree.unflatten(static["tree"], range(len(leaves)))
        shared = {i for position in self._shared for i in jax.tree.leaves(arguments[position])}
        if self._sums or any(axes[i] is not None for i in shared):
            return self._row_by_row(leaves, axes, **static)
        (size,) = {z.shape[axis] for z, axis in zip(leaves, axes, strict=True) if axis is not None}
        moved = [
            z
            if i in shared
            else jnp.broadcast_to(z, (size, *z.shape))
            if axis is None
            else jnp.moveaxis(z, axis, 0)
            for i, (z, axis) in enumerate(zip(leaves, axes, strict=True))
        ]
        results = self._primitive.bind(*moved, **static)
        return results, [0] * len(results)

    def _row_by_row(self, leaves, axes, *, tree, implementation, interpret, options):
        """Where rows have their own of what they share, or want their own of what is summed: the plainest way."""
        del interpret
        plainest = self.preferred[""][-1]
        if implementation not in (None, plainest):
            raise NotImplementedError(
                f"{self.name}: implementation={implementation!r} has no form in which rows of a batch differ in what "
                f"they share, as under a jax.vmap over models. Leave implementation out; that takes {plainest!r}."
            )
        run = self.implementations[plainest].run

        def row(*leaves):
            return jax.tree.leaves(run(*jax.tree.unflatten(tree, leaves), **dict(options)))

        results = jax.vmap(row, in_axes=list(axes))(*leaves)
        return results, [0] * len(results)

    def differentiated_by(self, backward: "Operation", saved: Callable[..., Any]) -> None:
        """Gives the operation a derivative, for reverse mode.

        Unlike a `jax.custom_vjp` it is applied after `jax.vmap` has made one call of all rows, so that the cotangent
        of what rows share is one sum and not one array a row.

        Args:
          backward: Takes the cotangents of all outputs and what was saved; returns those of the floating arguments,
            in their order.
          saved: Takes the arguments and the outputs to what is saved, and to outputs that may have been renamed.
        """
        linear = Primitive(f"{self.name}_tangent")
        linear.multiple_results = True

        def jvp(primals, tangents, *, tree, **static):
            arguments = jax.tree.unflatten(tree, primals)
            results = self._primitive.bind(*primals, tree=tree, **static)
            results = jax.tree.unflatten(jax.tree.structure(self._outputs(*arguments)), results)
            residuals, results = saved(arguments, results)
            moving = [
                ad.instantiate_zeros(dz)
                for z, dz in zip(primals, tangents, strict=True)
                if jnp.issubdtype(z.dtype, jnp.floating)
            ]
            kept, kept_tree = jax.tree.flatten(residuals)
            outputs = tuple(jax.typeof(z) for z in jax.tree.leaves(results))
            tangents = linear.bind(
                *kept, *moving, tree=kept_tree, kept=len(kept), outputs=outputs, static=tuple(static.items())
            )
            return jax.tree.leaves(results), tangents

        def transpose(cotangents, *leaves, tree, kept, outputs, static):
            cotangents = [ad.instantiate_zeros(ct) for ct in cotangents]
            residuals = jax.tree.unflatten(tree, leaves[:kept])
            known = dict(static)
            options = known.pop("options")
            results = backward(*cotangents, *residuals, **known, **dict(options))
            wanted = map(ad.is_undefined_primal, leaves[kept:])
            return [None] * kept + [
                ct if yes else None for ct, yes in zip(jax.tree.leaves(results), wanted, strict=True)
            ]

        def forward_mode(*_, **__):
            raise NotImplementedError(
                f"{self.name} has no forward-mode derivative (jax.jvp, jax.jacfwd, jax.hessian). Take reverse mode: "
                "jax.vjp, jax.grad or jax.jacrev."
            )

        mlir.register_lowering(linear, forward_mode)
        linear.def_abstract_eval(lambda *leaves, outputs, **_: list(outputs))
        ad.primitive_jvps[self._primitive] = jvp
        ad.primitive_transposes[linear] = transpose

    @functools.cache  # noqa: B019  (operations live as long as the module)
    def _jitted(self, **static):
        return jax.jit(functools.partial(self._primitive.bind, **static))
