"""What the benchmark compares with: the same training in JAX and PyTorch, as one would write it there.

A contender gets a model of NACs and NALUs, parameters of S replicas, rows in memory (S, B, I) and (S, B, O), and
returns a function that takes a number of steps of Adam from these parameters and returns the losses (steps, S).
Libraries are imported where they are used; nothing else in the package needs them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .kernels.planes import parts
from .layer import Chain, Layer

B1, B2, EPS = 0.9, 0.999, 1e-8

#: Takes some steps from the initial values, and returns the losses.
Run = Callable[[int], Any]


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


# --- JAX --------------------------------------------------------------------------------------------------------


def _import_jax() -> Any:  # pragma: no cover  (tests with the marker peers run it)
    """JAX with its fastest generator on a CPU, as measured: threefry, not partitionable, one key for all.

    Nanoseconds of CPU for the 256 numbers of a seed-step of C, and microseconds for the 12,800 of E:

        threefry, not partitionable: one key 470, 23; a key for each replica 530, 28
        threefry, partitionable, which is the default: 4,200, 63; 4,200, 56
        rbg: 4,900, 246; 4,800, 243        unsafe_rbg: 5,100, 246; 4,900, 261
    """
    jax = importlib.import_module("jax")
    jax.config.update("jax_threefry_partitionable", False)
    return jax


def _jax_adam(jax: Any, gradients: Any, lr: float) -> Any:  # pragma: no cover
    """A step of Adam; gradients(params, step) are losses and gradients."""
    jnp, tree = jax.numpy, jax.tree

    def advance(state: Any, step: Any) -> tuple[Any, Any]:
        params, m, v = state
        losses, g = gradients(params, step)
        t = step + 1.0
        m = tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, g)
        v = tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, g)
        size, scale = lr / (1 - B1**t), 1 / (1 - B2**t)
        params = tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v * scale) + EPS), params, m, v)
        return (params, m, v), losses

    return advance


def _jax(  # pragma: no cover
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool, scan: bool = True
) -> Run:
    """jit(vmap(value_and_grad)), in a scan or called for each step."""
    jax = _import_jax()
    jnp = jax.numpy
    x, y = jnp.asarray(x), jnp.asarray(y)
    half = x.shape[2] // 2
    start = {name: jnp.asarray(value) for name, value in params.items()}
    zeros = jax.tree.map(jnp.zeros_like, start)
    key = jax.random.key(0)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return jnp.mean((_forward(model, params, x, jnp, jax.nn.sigmoid) - y) ** 2)

    def draw(step: Any) -> tuple[Any, Any]:
        rows = jax.random.uniform(jax.random.fold_in(key, step), x.shape, minval=1.0, maxval=2.0)
        return rows, (rows[..., :half].mean(-1) * rows[..., half:].mean(-1))[..., None]

    def gradients(rows: Any, params: Any, step: Any) -> Any:
        return jax.vmap(jax.value_and_grad(loss))(params, *(draw(step) if fresh else rows))

    # Rows are arguments of what is compiled: as constants they would be folded, for minutes.
    def advance(state: Any, step: Any, rows: Any) -> tuple[Any, Any]:
        return _jax_adam(jax, partial(gradients, rows), lr)(state, step)  # type: ignore[no-any-return]

    def train(state: Any, steps: Any, rows: Any) -> Any:
        return jax.lax.scan(lambda state, step: advance(state, step, rows), state, steps)[1]

    whole, once = jax.jit(train), jax.jit(advance, donate_argnums=0)

    def run(steps: int) -> Any:
        if scan:
            return np.asarray(whole((start, zeros, zeros), jnp.arange(steps, dtype=jnp.float32), (x, y)))
        state, kept = jax.tree.map(jnp.copy, (start, zeros, zeros)), []
        for step in range(steps):
            state, losses = once(state, np.float32(step), (x, y))
            kept.append(losses)
        return np.stack(kept)

    return run


def _jax_by_hand(  # pragma: no cover
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool
) -> Run:
    """One NALU with one output: gradients derived by hand, whole planes, 128 replicas at a time, one flat Adam.

    Measured on C with 1,024 replicas, ns a seed-step: sums as products with ones 305, `sum` 365, one reduction of
    many operands 1,700, stacked sums 1,000, matrix products 510; rows before replicas 450; chunks of 64, 128, 256
    and 1,024 replicas 303, 305, 340, 400. Of XLA's flags (vector width 512, fast math with and without its
    exceptions, one Eigen thread, AVX2, fast min and max, split code generation) none gained more than the noise;
    without fusion emitters it took a third longer, without the concurrent scheduler a quarter. So there are none.
    """
    jax = _import_jax()
    jnp = jax.numpy
    S, B, I = x.shape  # noqa: E741
    chunk = 128 if S % 128 == 0 else S
    eps = model.eps  # type: ignore[attr-defined]
    ones = jnp.ones(B, jnp.float32)

    def split(planes: Any) -> Any:
        """(features, S, ...) as (chunks, features, chunk, ...)."""
        return jnp.asarray(planes).reshape(len(planes), S // chunk, chunk, *planes.shape[2:]).swapaxes(0, 1)

    def logarithms(x: Any) -> Any:
        return jnp.log(jnp.abs(x) + eps)

    def draw(key: Any, step: Any) -> Any:
        x = jax.random.uniform(jax.random.fold_in(key, step), (I, chunk, B), minval=1.0, maxval=2.0)
        return x, logarithms(x), x[: I // 2].mean(0) * x[I // 2 :].mean(0)

    def gradients(rows: Any, key: Any, theta: Any, step: Any) -> Any:
        x, logs, target = draw(key, step) if fresh else rows
        tanh, s, G = jnp.tanh(theta[:I]), jax.nn.sigmoid(theta[I : 2 * I]), theta[2 * I :, :, None]
        W = (tanh * s)[..., None]
        a = sum(W[i] * x[i] for i in range(I))
        m = jnp.exp(sum(W[i] * logs[i] for i in range(I)))
        g = 1 / (1 + jnp.exp(-sum(G[i] * x[i] for i in range(I))))
        h = 1 - g
        hm = h * m
        e = g * a + hm - target
        d = e * (2 / B)
        da, dp = d * g, d * hm
        du = da * h * (a - m)
        dW = jnp.stack([(da * x[i] + dp * logs[i]) @ ones for i in range(I)])
        dG = [(du * x[i]) @ ones for i in range(I)]
        return (e * e) @ ones / B, jnp.concatenate(
            [dW * s * (1 - tanh**2), dW * tanh * s * (1 - s), jnp.stack(dG)]
        )

    def train(steps: Any, theta: Any, x: Any, target: Any, key: Any) -> Any:
        rows = x, logarithms(x), target[0]
        zeros = jnp.zeros_like(theta)
        return jax.lax.scan(_jax_adam(jax, partial(gradients, rows, key), lr), (theta, zeros, zeros), steps)[1]

    theta = split(np.concatenate([params[name][..., 0].T for name in ("W_hat", "M_hat", "G")]))
    chunks = (
        theta,
        split(x.transpose(2, 0, 1)),
        split(y.transpose(2, 0, 1)),
        jax.random.split(jax.random.key(0), S // chunk),
    )
    compiled = jax.jit(lambda steps, chunks: jax.lax.map(lambda one: train(steps, *one), chunks))

    def run(steps: int) -> Any:
        losses = np.asarray(compiled(jnp.arange(steps, dtype=jnp.float32), chunks))
        return losses.transpose(1, 0, 2).reshape(steps, S)

    return run


# --- PyTorch ----------------------------------------------------------------------------------------------------


def _import_torch() -> Any:  # pragma: no cover
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    return torch


def _torch(  # pragma: no cover
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool
) -> Run:
    """Eager, with its own Adam; all replicas in one batch of matrices, or one without an axis of replicas."""
    torch = _import_torch()
    shape, half = x.shape, x.shape[-1] // 2
    x, y = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))
    generator = torch.Generator().manual_seed(0)

    def run(steps: int) -> Any:
        variables = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
        adam = torch.optim.Adam(variables.values(), lr=lr, betas=(B1, B2), eps=EPS)
        kept, rows, target = [], x, y
        for _ in range(steps):
            if fresh:
                rows = torch.rand(shape, generator=generator) + 1
                target = (rows[..., :half].mean(-1) * rows[..., half:].mean(-1))[..., None]
            adam.zero_grad()
            losses = ((_forward(model, variables, rows, torch, torch.sigmoid) - target) ** 2).mean((-2, -1))
            losses.sum().backward()
            adam.step()
            kept.append(losses.detach())
        return torch.stack(kept).numpy()

    return run


def _torch_a_seed_at_a_time(  # pragma: no cover
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool
) -> Run:
    """The same, one seed after the other."""
    seeds = [
        _torch(model, {name: value[s] for name, value in params.items()}, x[s], y[s], lr=lr, fresh=fresh)
        for s in range(len(x))
    ]
    return lambda steps: np.stack([run(steps) for run in seeds], axis=1)


def _torch_compiled(  # pragma: no cover
    model: Layer, params: Any, x: Any, y: Any, *, lr: float, fresh: bool
) -> Run:
    """The whole step compiled, Adam too; rows in memory."""
    torch = _import_torch()
    x, y = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))
    start = {name: torch.tensor(value) for name, value in params.items()}

    def loss(params: Any) -> tuple[Any, Any]:
        losses = ((_forward(model, params, x, torch, torch.sigmoid) - y) ** 2).mean((1, 2))
        return losses.sum(), losses

    def advance(params: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any, Any]:
        g, (_, losses) = torch.func.grad_and_value(loss, has_aux=True)(params)
        m = {name: B1 * m[name] + (1 - B1) * g[name] for name in g}
        v = {name: B2 * v[name] + (1 - B2) * g[name] ** 2 for name in g}
        size, scale = lr / (1 - B1**t), 1 / (1 - B2**t)
        params = {n: params[n] - size * m[n] / ((v[n] * scale).sqrt() + EPS) for n in g}
        return params, m, v, losses

    compiled = torch.compile(advance)

    def run(steps: int) -> Any:
        zeros = {name: torch.zeros_like(value) for name, value in start.items()}
        state, kept = (start, zeros, zeros), []
        with torch.no_grad():
            for step in range(steps):
                *state, losses = compiled(*state, torch.tensor(step + 1.0))  # type: ignore[assignment, unused-ignore]
                kept.append(losses)
        return torch.stack(kept).numpy()

    return run


#: Of each library, who competes.
PEERS: dict[str, dict[str, Callable[..., Run]]] = {
    "jax": {"jax": _jax, "jax a step": partial(_jax, scan=False), "jax by hand": _jax_by_hand},
    "torch": {
        "torch": _torch,
        "torch.compile": _torch_compiled,
        "torch a seed at a time": _torch_a_seed_at_a_time,
    },
}


# --- from nothing to a trained network --------------------------------------------------------------------------
# Each is the source of a program: it imports what it needs, and nothing that it does not.


def _cold_ours(start: dict[str, Any], steps: int, lr: float) -> Any:
    """A NAC that learns a sum: its weights."""
    import numpy as np

    nn = importlib.import_module("nalu_np")
    x = np.random.default_rng(0).random((2000, 2), dtype=np.float32) + 1
    found = nn.fit(
        nn.NAC(2, 1), x, x.sum(axis=1, keepdims=True), steps=steps, optimizer=nn.Adam(lr=lr), every=steps
    )
    last = nn.replica(found.params, 0)
    return nn.to_numpy(nn.NAC(2, 1).values(last, x)["W"]).tolist()


def _cold_jax(start: dict[str, Any], steps: int, lr: float) -> Any:  # pragma: no cover
    """The same in a scan."""
    import jax  # type: ignore[import-not-found, unused-ignore]
    import jax.numpy as jnp  # type: ignore[import-not-found, unused-ignore]
    import numpy as np

    x = np.random.default_rng(0).random((2000, 2), dtype=np.float32) + 1
    y = x.sum(axis=1, keepdims=True)

    def weights(params: Any) -> Any:
        return jnp.tanh(params["W_hat"]) * jax.nn.sigmoid(params["M_hat"])

    def advance(state: Any, step: Any) -> tuple[Any, Any]:
        params, m, v = state
        g = jax.grad(lambda params: jnp.mean((x @ weights(params) - y) ** 2))(params)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        size, scale = lr / (1 - 0.9**step), 1 / (1 - 0.999**step)
        params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v * scale) + 1e-8), params, m, v)
        return (params, m, v), None

    def train(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        times = jnp.arange(1, steps + 1, dtype=jnp.float32)
        return weights(jax.lax.scan(advance, (params, zeros, zeros), times)[0][0])

    params = {name: jnp.array(value, jnp.float32) for name, value in start.items()}
    return np.asarray(jax.jit(train)(params)).tolist()


def _cold_torch(start: dict[str, Any], steps: int, lr: float) -> Any:  # pragma: no cover
    """The same, eager."""
    import numpy as np
    import torch  # type: ignore[import-not-found, unused-ignore]

    torch.set_num_threads(1)
    x = torch.from_numpy(np.random.default_rng(0).random((2000, 2), dtype=np.float32) + 1)
    y = x.sum(dim=1, keepdim=True)
    W_hat, M_hat = (torch.tensor(start[name], requires_grad=True) for name in ("W_hat", "M_hat"))
    adam = torch.optim.Adam([W_hat, M_hat], lr=lr)
    for _ in range(steps):
        adam.zero_grad()
        loss = ((x @ (torch.tanh(W_hat) * torch.sigmoid(M_hat)) - y) ** 2).mean()
        loss.backward()
        adam.step()
    return (torch.tanh(W_hat) * torch.sigmoid(M_hat)).tolist()


COLD: dict[str, Callable[..., Any]] = {"planes": _cold_ours, "jax": _cold_jax, "torch": _cold_torch}


def library(contender: str) -> str | None:
    """Which library a contender is written in; None for our own."""
    return next((name for name, contenders in PEERS.items() if contender in contenders), None)


def missing(names: Sequence[str]) -> list[str]:
    """Of these libraries, those that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of libraries that are installed."""
    return {name: importlib.metadata.version(name) for name in names}
