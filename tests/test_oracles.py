"""Three oracles that know nothing of the code they judge: SymPy, HIPS autograd and the complex step.

Every vjp is compared in full, each entry of each argument, with the error scaled by the largest entry expected.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import sympy as sp
from autograd.tracer import getval
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nalu_np as nn
from nalu_np import vjps
from nalu_np.layer import Chain, Layer, Scan
from nalu_np.units.nalu import GATES
from nalu_np.units.paths import TINY


def assert_close(actual, expected, tolerance, what):
    """Equal up to a part of the largest entry; an expected gradient of 0 must be 0 exactly."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, what
    error, scale = np.max(np.abs(actual - expected), initial=0.0), np.max(np.abs(expected), initial=0.0)
    assert error <= tolerance * scale, f"{what}: off by {error:.1e}, largest entry {scale:.1e}"


# --- SymPy: the equations in index form, differentiated by someone else ---------------------------------------

EPS = 0.25  # so large that a gradient which forgets it is far off


@dataclass
class Case:
    """A block or a unit, the same formula written for SymPy, and the shapes at which they meet."""

    name: str
    run: Callable[..., Any]  # (**arrays) -> value, (dvalue -> gradients by name)
    formula: Callable[..., Any]  # (**symbols) -> expressions
    shapes: dict[str, tuple[int, ...]]
    constants: set[str] = field(default_factory=set)  # arguments without a gradient
    far: float = 4.0  # how far out the farthest point lies


def grid(entry, rows=2, columns=2):
    return np.array([[entry(r, c) for c in range(columns)] for r in range(rows)], dtype=object)


def entrywise(function):
    return lambda z: np.vectorize(function, otypes=[object])(z)


def sigma(z):
    return 1 / (1 + sp.exp(-z))


def weight(W_hat, M_hat):
    return grid(lambda i, o: sp.tanh(W_hat[i, o]) * sigma(M_hat[i, o]))


def weighted_sum(x, W):
    return grid(lambda b, o: x[b, 0] * W[0, o] + x[b, 1] * W[1, o])


def weighted_product(x, W):
    return grid(lambda b, o: (sp.Abs(x[b, 0]) + EPS) ** W[0, o] * (sp.Abs(x[b, 1]) + EPS) ** W[1, o])


def signed_product(x, W):
    """Powers of magnitudes, and a sign for each negative factor with an exponent that rounds to an odd number."""

    def factor(b, i, o):
        halves = sp.Mod(sp.floor(2 * sp.Abs(W[i, o]) + sp.Rational(1, 2)), 4)
        sign = sp.Piecewise((-1, sp.And(x[b, i] < 0, sp.Eq(halves, 2))), (1, True))
        return sign * (sp.Abs(x[b, i]) + TINY["float64"]) ** W[i, o]

    return grid(lambda b, o: factor(b, 0, o) * factor(b, 1, o))


def times(formula):
    return lambda x, W, c: formula(x, W) * c


GATE_ENTRIES = {
    "matrix": lambda x, G, b, o: sigma(x[b, 0] * G[0, o] + x[b, 1] * G[1, o]),
    "scalar": lambda x, G, b, o: sigma(x[b, 0] * G[0, 0] + x[b, 1] * G[1, 0]),
    "abs": lambda x, G, b, o: sigma(sp.Abs(x[b, 0]) * G[0, o] + sp.Abs(x[b, 1]) * G[1, o]),
    "independent": lambda x, G, b, o: sigma(G[o]),
}
GATE_SHAPES = {"matrix": (2, 2), "scalar": (2, 1), "abs": (2, 2), "independent": (2,)}
GATE_COLUMNS = {"scalar": {"columns": 1}, "independent": {"rows": 1}}


def gate_formula(kind):
    return lambda x, G: grid(lambda b, o: GATE_ENTRIES[kind](x, G, b, o), **GATE_COLUMNS.get(kind, {}))


def mix_formula(g, a, m):
    rows, columns = g.shape

    def entry(b, o):
        chosen = g[b if rows > 1 else 0, o if columns > 1 else 0]
        return chosen * a[b, o] + (1 - chosen) * m[b, o]

    return grid(entry)


def nalu_formula(kind, tied):
    def formula(x, G, **q):
        W_a = weight(q["W_hat"], q["M_hat"]) if tied else weight(q["W_hat_a"], q["M_hat_a"])
        W_m = W_a if tied else weight(q["W_hat_m"], q["M_hat_m"])
        a, m = weighted_sum(x, W_a), weighted_product(x, W_m)

        def entry(b, o):
            g = GATE_ENTRIES[kind](x, G, b, o)
            return g * a[b, o] + (1 - g) * m[b, o]

        return grid(entry)

    return formula


def block_case(name, block, formula, constants=(), **shapes):
    def run(**arrays):
        value, vjp = block(*arrays.values())
        names = [name for name in arrays if name not in constants]

        def gradients(dvalue):
            found = vjp(dvalue)
            return dict(zip(names, found if isinstance(found, tuple) else (found,), strict=True))

        return value, gradients

    return Case(name, run, formula, shapes, set(constants))


def layer_case(layer, formula, rows=(2, 2), far=4.0):
    def run(x, **params):
        value, vjp = layer(params, x)

        def gradients(dvalue):
            dx, dparams = vjp(dvalue)
            return {"x": dx, **dparams}

        return value, gradients

    return Case(repr(layer), run, formula, {"x": rows, **layer.shapes()}, far=far)


ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: sp.Piecewise((z, z > 0), (0, True)),
    "relu6": lambda z: sp.Piecewise((6, z >= 6), (z, z > 0), (0, True)),
    "tanh": sp.tanh,
    "sigmoid": sigma,
    "hardtanh": lambda z: sp.Piecewise((1, z >= 1), (z, z > -1), (-1, True)),
    "softsign": lambda z: z / (1 + sp.Abs(z)),
    "threshold": lambda z: sp.Piecewise((z, z > 1), (0, True)),
    "elu": lambda z: sp.Piecewise((z, z > 0), (sp.exp(z) - 1, True)),
    "selu": lambda z: 1.0507009873554805 * sp.Piecewise((z, z > 0), (1.6732632423543772 * (sp.exp(z) - 1), True)),
    "softshrink": lambda z: sp.Piecewise((z - 0.5, z > 0.5), (z + 0.5, z < -0.5), (0, True)),
    "hardshrink": lambda z: sp.Piecewise((z, sp.Abs(z) > 0.5), (0, True)),
    "tanhshrink": lambda z: z - sp.tanh(z),
    "leakyrelu": lambda z: sp.Piecewise((z, z > 0), (z / 100, True)),
    "softplus": lambda z: sp.log(1 + sp.exp(z)),
}


def prelu(z, alpha):
    return entrywise(lambda q: sp.Piecewise((q, q > 0), (alpha[0] * q, True)))(z)


def crelu(z):
    return np.concatenate([entrywise(ACTIVATIONS["relu"])(side) for side in (z, -z)], axis=1)


def unrolled(step):
    """A cell's formula, step(u, v, h, c) -> h', c', through time; u and v are cut into gates of one unit each."""

    def formula(x, W_ih, W_hh, b_ih, b_hh):
        h, c, ys = np.array([[0]]), 0, []
        for row in x:
            u, v = row @ W_ih + b_ih, h @ W_hh + b_hh
            h, c = step(u[0], v[0], h[0, 0], c)
            h = np.array([[h]])
            ys.append(h)
        return np.array(ys)

    return formula


def rnn_step(u, v, h, c):
    return sp.tanh(u[0] + v[0]), c


def gru_step(u, v, h, c):
    r, z = sigma(u[0] + v[0]), sigma(u[1] + v[1])
    return (1 - z) * sp.tanh(u[2] + r * v[2]) + z * h, c


def lstm_step(u, v, h, c):
    i, f, g, o = u + v
    c = sigma(f) * c + sigma(i) * sp.tanh(g)
    return sigma(o) * sp.tanh(c), c


LOSSES = {
    "mse": lambda y, target: [
        sum((q - t) ** 2 for q, t in zip(*rows, strict=True)) / 4 for rows in split(y, target)
    ],
    "mae": lambda y, target: [
        sum(sp.Abs(q - t) for q, t in zip(*rows, strict=True)) / 4 for rows in split(y, target)
    ],
}


def split(y, target):
    """The entries of each replica, side by side."""
    return [(y[s].ravel(), target[s].ravel()) for s in range(2)]


square = (2, 2)
CASES = [
    block_case("nac_weight", vjps.nac_weight, weight, W_hat=square, M_hat=square),
    block_case("linear", vjps.linear, weighted_sum, x=square, W=square),
    block_case("log_product", functools.partial(vjps.log_product, eps=EPS), weighted_product, x=square, W=square),
    *(
        block_case(f"{kind} gate", GATES[kind], gate_formula(kind), x=square, G=GATE_SHAPES[kind])
        for kind in GATE_ENTRIES
    ),
    *(block_case(f"mix, g {g}", vjps.mix, mix_formula, g=g, a=square, m=square) for g in [(2, 2), (2, 1), (1, 2)]),
    *(block_case(name, vjps.ACTIVATIONS[name], entrywise(ACTIVATIONS[name]), z=square) for name in ACTIVATIONS),
    *(
        block_case(name, vjps.LOSSES[name], LOSSES[name], ["target"], y=(2, 2, 2), target=(2, 2, 2))
        for name in LOSSES
    ),
    layer_case(nn.NAC(2, 2), lambda x, W_hat, M_hat: weighted_sum(x, weight(W_hat, M_hat))),
    layer_case(nn.LogNAC(2, 2, eps=EPS), lambda x, W_hat, M_hat: weighted_product(x, weight(W_hat, M_hat))),
    *(
        layer_case(nn.NALU(2, 2, gate=kind, tied=tied, eps=EPS), nalu_formula(kind, tied))
        for kind in GATE_ENTRIES
        for tied in (True, False)
    ),
    *(
        layer_case(
            nn.Dense(2, 2, activation=name),
            lambda x, W, b, f=ACTIVATIONS[name]: entrywise(f)(weighted_sum(x, W) + np.array([b, b])),
        )
        for name in ACTIVATIONS
    ),
    layer_case(nn.Dense(2, 2, bias=False), weighted_sum),
    layer_case(
        nn.Dense(2, 2, activation="prelu"),
        lambda x, W, b, alpha: prelu(weighted_sum(x, W) + np.array([b, b]), alpha),
    ),
    layer_case(nn.Dense(2, 4, activation="crelu", bias=False), lambda x, W: crelu(weighted_sum(x, W))),
    *(
        layer_case(nn.scan(cell(1, 1)), unrolled(step), rows=(2, 1, 1), far=1.0)
        for cell, step in [(nn.RNN, rnn_step), (nn.GRU, gru_step), (nn.LSTM, lstm_step)]
    ),
    layer_case(nn.SumPath(2, 2), weighted_sum),
    layer_case(nn.SumPath(2, 2, scale=True), times(weighted_sum)),
    layer_case(nn.ProductPath(2, 2), signed_product),
    layer_case(nn.ProductPath(2, 2, scale=True), times(signed_product)),
]


def derive(case):
    """Compile value and gradients, (arrays, dvalue) -> value, gradients by name, by symbolic differentiation."""
    symbols = {
        name: np.array(sp.symbols(f"{name}_:{prod(shape)}", real=True), dtype=object).reshape(shape)
        for name, shape in case.shapes.items()
    }
    value = np.array(case.formula(**symbols), dtype=object)
    dvalue = np.array(sp.symbols(f"dvalue_:{value.size}", real=True), dtype=object).reshape(value.shape)
    L = (dvalue * value).sum()
    names = [name for name in case.shapes if name not in case.constants]
    gradients = [sp.diff(L, q) for name in names for q in symbols[name].ravel()]
    everything = [q for array in (*symbols.values(), dvalue) for q in array.ravel()]
    compiled = sp.lambdify(everything, [*value.ravel(), *gradients], modules="numpy", cse=True)

    def evaluate(arrays, given):
        flat = np.array(compiled(*(q for array in (*arrays.values(), given) for q in array.ravel())), dtype=float)
        found, rest = flat[: value.size].reshape(value.shape), flat[value.size :]
        gradients = {}
        for name in names:
            shape = case.shapes[name]
            gradients[name], rest = rest[: prod(shape)].reshape(shape), rest[prod(shape) :]
        return found, gradients

    return value.shape, evaluate


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_vjp_are_those_of_the_formula(case):
    shape, evaluate = derive(case)
    rng = np.random.default_rng(7)
    for point in range(6):
        arrays = {name: rng.normal(scale=1.5, size=q) for name, q in case.shapes.items()}
        if point == 4:  # far out, where relu6 and the weights are saturated
            arrays = {name: q * case.far for name, q in arrays.items()}
        if point == 5:  # at the kinks: SymPy has sign(0) = 0 too
            arrays = {name: np.where(np.arange(q.size).reshape(q.shape) % 2, q, 0.0) for name, q in arrays.items()}
        dvalue = rng.normal(size=shape)
        value, gradients = case.run(**arrays)
        expected_value, expected = evaluate(arrays, dvalue)
        found = gradients(dvalue)
        assert_close(value, expected_value, 1e-13, "value")
        assert found.keys() == expected.keys()
        for name, q in expected.items():
            assert_close(found[name], q, 1e-10, f"d{name} at point {point}")


# --- HIPS autograd: the forward pass of one replica, written again for it -------------------------------------


def anp_sigma(z):
    return 1 / (1 + anp.exp(-z))


ANP_ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": lambda z: anp.maximum(z, 0.0),
    "relu6": lambda z: anp.minimum(anp.maximum(z, 0.0), 6.0),
    "tanh": anp.tanh,
    "sigmoid": anp_sigma,
    "hardtanh": lambda z: anp.minimum(anp.maximum(z, -1.0), 1.0),
    "softsign": lambda z: z / (1 + anp.abs(z)),
    "threshold": lambda z: anp.where(z > 1, z, 0.0),
    "elu": lambda z: anp.where(z > 0, z, anp.expm1(anp.minimum(z, 0.0))),
    "softshrink": lambda z: anp.sign(z) * anp.maximum(anp.abs(z) - 0.5, 0.0),
    "hardshrink": lambda z: anp.where(anp.abs(z) > 0.5, z, 0.0),
    "leakyrelu": lambda z: anp.where(z > 0, z, 0.01 * z),
    "softplus": lambda z: anp.logaddexp(z, 0.0),
    "crelu": lambda z: anp.concatenate([anp.maximum(z, 0.0), anp.maximum(-z, 0.0)], axis=-1),
}
ANP_GATES = {
    "matrix": lambda x, G: anp_sigma(anp.dot(x, G)),
    "scalar": lambda x, G: anp_sigma(anp.dot(x, G)),
    "abs": lambda x, G: anp_sigma(anp.dot(anp.abs(x), G)),
    "independent": lambda x, G: anp_sigma(G),
}


def power_signs(x, W):
    """Of x ** W, W rounded to multiples of 1/2, each product by itself; roots are of magnitudes."""
    rounded = np.floor(2 * np.abs(W) + 0.5) / 2
    whole = np.where(rounded % 1 == 0, rounded, 0)
    return np.prod(np.sign(x)[:, :, None] ** whole, axis=1)


def along_time(cell, q, x):
    """The outputs of a recurrent cell, step by step."""
    h = c = anp.zeros((x.shape[1], cell.out_features))
    ys = []
    for row in x:
        if isinstance(cell, nn.Accumulator):
            h = h + reference(cell.layer, q, row)
        elif isinstance(cell, nn.Recurrent):
            h = reference(cell.layer, q, anp.concatenate([row, h], axis=1))
        else:
            u, v = anp.dot(row, q["W_ih"]) + q["b_ih"], anp.dot(h, q["W_hh"]) + q["b_hh"]
            gates = [[side[:, k : k + h.shape[1]] for k in range(0, u.shape[1], h.shape[1])] for side in (u, v)]
            if isinstance(cell, nn.LSTM):
                i, f, g, o = (p + q for p, q in zip(*gates, strict=True))
                c = anp_sigma(f) * c + anp_sigma(i) * anp.tanh(g)
                h = anp_sigma(o) * anp.tanh(c)
            elif isinstance(cell, nn.GRU):
                (u_r, u_z, u_n), (v_r, v_z, v_n) = gates
                z = anp_sigma(u_z + v_z)
                h = (1 - z) * anp.tanh(u_n + anp_sigma(u_r + v_r) * v_n) + z * h
            else:
                h = ANP_ACTIVATIONS[cell.activation](u + v)
        ys.append(h)
    return anp.array(ys)


def reference(layer, q, x):
    """What a layer of one replica computes, by its definition."""
    if isinstance(layer, Chain):
        for i, inner in enumerate(layer.layers):
            x = reference(inner, {name: q[f"{i}.{name}"] for name in inner.shapes()}, x)
        return x
    if isinstance(layer, Scan):
        return along_time(layer.cell, q, x)
    if isinstance(layer, nn.Last):
        return reference(layer.layer, q, x[-1])[None]
    if isinstance(layer, nn.Dense):
        z = anp.dot(x, q["W"]) + (q["b"] if layer.bias else 0.0)
        if layer.activation == "prelu":
            return anp.where(z > 0, z, q["alpha"] * z)
        return ANP_ACTIVATIONS[layer.activation](z)

    if isinstance(layer, nn.SumPath):
        return anp.dot(x, q["W"]) * (q["c"] if layer.scale else 1.0)
    if isinstance(layer, nn.ProductPath):
        m = anp.exp(anp.dot(anp.log(anp.abs(x)), q["W"])) * power_signs(getval(x), getval(q["W"]))
        return m * (q["c"] if layer.scale else 1.0)

    def weights(path=""):
        return anp.tanh(q[f"W_hat{path}"]) * anp_sigma(q[f"M_hat{path}"])

    if isinstance(layer, nn.NALU):
        a_path, m_path = ("", "") if layer.tied else ("_a", "_m")
        a = anp.dot(x, weights(a_path))
        m = anp.exp(anp.dot(anp.log(anp.abs(x) + layer.eps), weights(m_path)))
        g = ANP_GATES[layer.gate](x, q["G"])
        return g * a + (1 - g) * m
    if isinstance(layer, nn.LogNAC):
        return anp.exp(anp.dot(anp.log(anp.abs(x) + layer.eps), weights()))
    return anp.dot(x, weights())


@st.composite
def layers(draw):
    kind = draw(
        st.sampled_from(["NAC", "LogNAC", "NALU", "SumPath", "ProductPath", "Dense", "chain", "scan", "last"])
    )
    inputs, hidden, outputs = (draw(st.integers(1, 4)) for _ in range(3))
    eps = draw(st.sampled_from([1e-7, 0.1]))

    def nalu(*sizes):
        return nn.NALU(*sizes, gate=draw(st.sampled_from(list(GATES))), tied=draw(st.booleans()), eps=eps)

    if kind == "NAC":
        return nn.NAC(inputs, outputs)
    if kind == "LogNAC":
        return nn.LogNAC(inputs, outputs, eps=eps)
    if kind == "NALU":
        return nalu(inputs, outputs)
    if kind in ("SumPath", "ProductPath"):
        return getattr(nn, kind)(inputs, outputs, scale=draw(st.booleans()))
    if kind == "Dense":
        activation = draw(st.sampled_from([*ANP_ACTIVATIONS, "prelu"]))
        outputs *= 2 if activation == "crelu" else 1
        return nn.Dense(inputs, outputs, activation=activation, bias=draw(st.booleans()))
    if kind == "chain":
        last = draw(st.sampled_from([nalu(hidden, outputs), nn.SumPath(hidden, outputs, scale=True)]))
        return nn.chain(nalu(inputs, hidden), last)
    if kind == "accumulator":
        return nn.scan(nn.Accumulator(draw(st.sampled_from([nn.NAC(inputs, outputs), nalu(inputs, outputs)]))))
    cells = [cell(inputs, hidden) for cell in (nn.RNN, nn.GRU, nn.LSTM)]
    cells += [nn.RNN(inputs, hidden, activation="relu"), nn.Recurrent(nn.NAC(inputs + hidden, hidden))]
    cell = draw(st.sampled_from(cells))
    return nn.chain(nn.scan(cell), nn.Last(nn.Dense(hidden, outputs)))


def draw_point(layer, rng, replicas, stacked_params, stacked_x, rows, steps=3, scale=1.0):
    """Float64 parameters, and x with every |x| >= 0.2 scale, away from the kink at 0."""
    lead = (replicas,)
    params = {
        name: rng.uniform(-1.0, 1.0, (lead if stacked_params else ()) + shape)
        for name, shape in layer.shapes().items()
    }
    axes = (rows, layer.in_features) if layer.rank == 2 else (steps, rows, layer.in_features)
    x = scale * rng.uniform(0.2, 2.0, (lead if stacked_x else ()) + axes)
    return params, x * rng.choice([-1.0, 1.0], x.shape)


def saturated(layer, params, x):
    """Whether some 1 - g or 1 - y^2 is so small that the digits it loses would hide a wrong gradient."""
    if isinstance(layer, Scan):
        return any(saturated(layer.cell.layer, params, x[..., t, :, :]) for t in range(x.shape[-3]))
    if layer.rank == 3:  # gates are fed sums of all inputs
        return bool(np.max(np.abs(x)) > 1.5)
    values = layer.values(params, x)
    near_one = [np.max(q) for name, q in values.items() if name.rpartition(".")[2] == "g"]
    if isinstance(layer, nn.Dense) and layer.activation in ("tanh", "sigmoid"):
        near_one.append(np.max(np.abs(np.tanh(values["z"]))))
    return max(near_one, default=0.0) > 1 - 1e-5


@settings(max_examples=200, deadline=None)
@given(
    layer=layers(),
    replicas=st.integers(1, 3),
    stacked_params=st.booleans(),
    stacked_x=st.booleans(),
    rows=st.integers(1, 4),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_vjp_is_that_of_autograd(layer, replicas, stacked_params, stacked_x, rows, scale, seed):
    rng = np.random.default_rng(seed)
    params, x = draw_point(layer, rng, replicas, stacked_params, stacked_x, rows, scale=scale)
    assume(not saturated(layer, params, x))
    stacked = stacked_params or stacked_x
    y, vjp = layer(params, x)
    dy = rng.normal(size=y.shape)

    def outputs(params, x):
        """What each replica computes, alone."""
        return [
            reference(
                layer,
                {name: q[s] for name, q in params.items()} if stacked_params else params,
                x[s] if stacked_x else x,
            )
            for s in range(replicas if stacked else 1)
        ]

    expected_y = np.stack(outputs(params, x)) if stacked else outputs(params, x)[0]
    assert_close(y, expected_y, 1e-11, "y")

    def loss(params, x):
        parts = zip(dy if stacked else dy[None], outputs(params, x), strict=True)
        return sum(anp.sum(given * found) for given, found in parts)

    dx, dparams = vjp(dy)
    expected_dparams, expected_dx = autograd.grad(loss, 0)(params, x), autograd.grad(loss, 1)(params, x)
    assert_close(dx, expected_dx, 1e-10, "dx")
    assert dparams.keys() == params.keys()
    for name in params:
        assert_close(dparams[name], expected_dparams[name], 1e-10, f"d{name}")


# --- the complex step: imag(f(q + ih)) / h is f'(q) to the last bits, where f is analytic ----------------------


def complex_step(value, arrays, name, dvalue):
    """dL/dq for L = sum(dvalue * value), entry by entry, without a difference that could cancel."""
    h = 1e-30
    gradient = np.empty_like(arrays[name])
    for index in np.ndindex(gradient.shape):
        moved = {key: q.astype(np.complex128) for key, q in arrays.items()}
        moved[name][index] += 1j * h
        gradient[index] = np.sum(dvalue * (np.imag(value(**moved)) / h))
    return gradient


def plain_product(x, W):
    return np.exp(np.log(x + 1e-7) @ W)


S, B, I, O = 3, 4, 3, 2  # noqa: E741
ANALYTIC = {
    "nac_weight": (
        vjps.nac_weight,
        None,
        [{"W_hat": (I, O), "M_hat": (I, O)}, {"W_hat": (S, I, O), "M_hat": (S, I, O)}],
    ),
    "linear": (
        vjps.linear,
        None,
        [
            {"x": (B, I), "W": (I, O)},
            {"x": (S, B, I), "W": (S, I, O)},
            {"x": (B, I), "W": (S, I, O)},
            {"x": (S, B, I), "W": (I, O)},
            {"x": (1, I), "W": (S, I, 1)},
        ],
    ),
    "gate": (
        vjps.gate,
        None,
        [
            {"x": (B, I), "G": (I, O)},
            {"x": (B, I), "G": (S, I, 1)},
            {"x": (S, B, I), "G": (I, 1)},
        ],
    ),
    "independent_gate": (vjps.independent_gate, None, [{"x": (B, I), "G": (O,)}, {"x": (B, I), "G": (S, O)}]),
    "log_product": (
        functools.partial(vjps.log_product, eps=1e-7),
        plain_product,
        [
            {"x": (B, I), "W": (I, O)},
            {"x": (B, I), "W": (S, I, O)},
            {"x": (S, B, I), "W": (I, O)},
        ],
    ),
    "mix": (
        vjps.mix,
        None,
        [
            {"g": (B, O), "a": (B, O), "m": (B, O)},
            {"g": (S, B, 1), "a": (S, B, O), "m": (S, B, O)},
            {"g": (S, 1, O), "a": (S, B, O), "m": (S, B, O)},
            {"g": (1, O), "a": (S, B, O), "m": (S, B, O)},
            {"g": (B, 1), "a": (S, B, O), "m": (S, B, O)},
        ],
    ),
    "tanh": (vjps.tanh, None, [{"z": (S, B, O)}]),
    "logistic": (vjps.logistic, None, [{"z": (S, B, O)}]),
    "mse": (lambda y: vjps.mse(y, np.ones((S, B, O))), None, [{"y": (S, B, O)}]),
}


@pytest.mark.parametrize(
    ("block", "value", "shapes"),
    [
        pytest.param(block, value, shapes, id=f"{name} {' '.join(map(str, shapes.values()))}".replace(" ", ""))
        for name, (block, value, all_shapes) in ANALYTIC.items()
        for shapes in all_shapes
    ],
)
def test_analytic_blocks_agree_with_the_complex_step(block, value, shapes):
    rng = np.random.default_rng(11)
    arrays = {name: rng.normal(scale=1.2, size=shape) for name, shape in shapes.items()}
    if value is plain_product:
        arrays["x"] = np.abs(arrays["x"]) + 0.1
    y, vjp = block(*arrays.values())
    dy = rng.normal(size=y.shape)
    found = vjp(dy)
    for name, gradient in zip(arrays, found if isinstance(found, tuple) else (found,), strict=True):
        evaluate = value or (lambda **moved: block(*moved.values())[0])
        assert_close(gradient, complex_step(evaluate, arrays, name, dy), 1e-13, f"d{name}")


@pytest.mark.parametrize(
    "layer",
    [
        nn.NAC(3, 2),
        nn.SumPath(3, 2),
        nn.SumPath(3, 2, scale=True),
        nn.Dense(3, 2, activation="tanh"),
        nn.chain(nn.NAC(3, 2), nn.Dense(2, 2, activation="sigmoid")),
        nn.scan(nn.Accumulator(nn.NAC(2, 2))),
        nn.scan(nn.Recurrent(nn.NAC(4, 2))),
        nn.scan(nn.RNN(3, 2)),
        nn.scan(nn.GRU(3, 2)),
        nn.chain(nn.scan(nn.LSTM(3, 2)), nn.Last(nn.Dense(2, 2))),
    ],
    ids=repr,
)
def test_analytic_layers_agree_with_the_complex_step(layer: Layer):
    rng = np.random.default_rng(13)
    params, x = draw_point(layer, rng, 2, True, False, rows=3)
    y, vjp = layer(params, x)
    dy = rng.normal(size=y.shape)
    dx, dparams = vjp(dy)
    arrays = {"x": x, **params}

    def value(x, **params):
        return layer.forward(params, x)[0]

    for name, gradient in {"x": dx, **dparams}.items():
        assert_close(gradient, complex_step(value, arrays, name, dy), 1e-13, f"d{name}")
