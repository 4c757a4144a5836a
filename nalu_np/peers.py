"""What the benchmark compares with: the same training in JAX and PyTorch, as one would write it there.

Each peer gets a model of NACs and NALUs, parameters of S replicas, rows in memory (S, B, I) and (S, B, O), and
returns a function that takes a number of steps of Adam from these parameters and returns the losses (steps, S).
Imported where they are used; nothing else in the package needs them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import OptionError
from .kernels.planes import parts
from .layer import Chain, Layer

B1, B2, EPS = 0.9, 0.999, 1e-8


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise OptionError(f"bench: {name} is not installed: pip install 'nalu_np[bench]'") from None


def _forward(model: Layer, params: Mapping[str, Any], x: Any, lib: Any, sigmoid: Any) -> Any:
    """The model on the arrays of another library."""
    for i, unit in enumerate(parts(model)):
        prefix = f"{i}." if isinstance(model, Chain) else ""
        W = lib.tanh(params[prefix + "W_hat"]) * sigmoid(params[prefix + "M_hat"])
        a = x @ W
        if prefix + "G" in params:
            m = lib.exp(lib.log(lib.abs(x) + unit.eps) @ W)  # type: ignore[attr-defined]
            g = sigmoid(x @ params[prefix + "G"])
            a = g * a + (1 - g) * m
        x = a
    return x


def _jax(  # pragma: no cover  (tests with the marker peers run it)
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool
) -> Callable[[int], Any]:
    """jit(vmap(grad)) in a scan; fresh rows come from a key for each replica, by its fastest generator."""
    jax = _import("jax")
    jnp = jax.numpy
    S, B, I = x.shape  # noqa: E741
    half = I // 2

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean((_forward(model, params, x, jnp, jax.nn.sigmoid) - y) ** 2)

    gradients = jax.vmap(jax.value_and_grad(loss))
    x, y = jnp.asarray(x), jnp.asarray(y)
    start = {name: jnp.asarray(value) for name, value in params.items()}
    keys = jax.random.split(jax.random.key(0, impl="unsafe_rbg"), S)

    def draw(key: Any, step: Any) -> tuple[Any, Any]:
        x = jax.random.uniform(jax.random.fold_in(key, step), (B, I), minval=1.0, maxval=2.0)
        return x, (x[:, :half].sum(axis=1) * x[:, half:].sum(axis=1))[:, None]

    def advance(state: Any, step: Any) -> tuple[Any, Any]:
        params, m, v = state
        rows = jax.vmap(draw, (0, None))(keys, step) if fresh else (x, y)
        losses, g = gradients(params, *rows)
        t = step + 1.0
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, g)
        v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, g)
        size = lr / (1 - B1**t)
        params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v / (1 - B2**t)) + EPS), params, m, v)
        return (params, m, v), losses

    def train(params: Any, steps: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(advance, (params, zeros, zeros), steps)[1]

    compiled = jax.jit(train)
    return lambda steps: np.asarray(compiled(start, jnp.arange(steps, dtype=jnp.float32)))


def _torch(  # pragma: no cover  (tests with the marker peers run it)
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool
) -> Callable[[int], Any]:
    """Eager, all replicas in one batch of matrices, with its own Adam."""
    torch = _import("torch")
    torch.set_num_threads(1)
    S, B, I = x.shape  # noqa: E741
    half = I // 2
    x, y = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))
    generator = torch.Generator().manual_seed(0)

    def run(steps: int) -> Any:
        variables = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
        adam = torch.optim.Adam(variables.values(), lr=lr, betas=(B1, B2), eps=EPS)
        kept, rows, target = [], x, y
        for _ in range(steps):
            if fresh:
                rows = torch.rand((S, B, I), generator=generator) + 1
                target = (rows[..., :half].sum(-1) * rows[..., half:].sum(-1))[..., None]
            adam.zero_grad()
            losses = ((_forward(model, variables, rows, torch, torch.sigmoid) - target) ** 2).mean((1, 2))
            losses.sum().backward()
            adam.step()
            kept.append(losses.detach())
        return torch.stack(kept).numpy()

    return run


PEERS: dict[str, Callable[..., Callable[[int], Any]]] = {"jax": _jax, "torch": _torch}


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of the peers that take part."""
    return {name: importlib.metadata.version(name) for name in names}
