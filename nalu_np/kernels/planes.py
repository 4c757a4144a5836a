"""NAC, LogNAC and NALU, alone or stacked, with MSE and Adam on NumPy: a training step in place, plane by plane.

The arrays of a batch are planes (features, S, B), so that every pass runs over long contiguous rows, and all sums
of products are one stacked matrix product each way. For a NALU, with l = log2(|x| + eps) and k = log2(e),

    [a]   [W   0]                       a = x W, p = l W, v = -k x G
    [p] = [0   W] [x]                   m = 2^p, g = 1 / (1 + 2^v), h = 1 - g
    [v]   [-kG 0] [l]                   y = g a + h m

A NAC is the first row alone, a LogNAC the second. The weights' gradients are the transposed product of the same
stack. The tags are those of `vjps`: the equations are the same, in another order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layer import Chain, Layer
from ..optim import Adam
from ..units import NAC, NALU, LogNAC

Host = NDArray[Any]

LN2, LOG2E = math.log(2), math.log2(math.e)

#: Between these exponents powers of 2 are normal numbers; at the upper end they are infinite.
EXPONENTS = {4: (-126.0, 128.0), 8: (-1022.0, 1024.0)}

#: Numbers of a step's widest stack of planes: what stays near the processor.
CHUNK = 1 << 18


def parts(model: Layer) -> tuple[Layer, ...]:
    """The units of a model, the first first."""
    return model.layers if isinstance(model, Chain) else (model,)


def supports(model: Layer, loss: str, optimizer: object) -> bool:
    """Whether this kernel trains a model; the answer depends on nothing else."""
    plain = all(
        type(unit) in (NAC, LogNAC) or (type(unit) is NALU and unit.tied and unit.gate == "matrix")
        for unit in parts(model)
    )
    return plain and loss == "mse" and type(optimizer) is Adam


def chunk(model: Layer, rows: int) -> int:
    """How many replicas to train at once."""
    widest = max(4, *(unit.in_features for unit in parts(model)))
    return max(1, CHUNK // (widest * rows))


def _exp2(p: Host, out: Host) -> None:
    """2^p; where the result would be subnormal, the smallest normal number, and infinity where it is too large.

    Outside of these bounds the processor takes 10 to 100 times as long; to look for such numbers costs little.
    """
    low, high = EXPONENTS[p.dtype.itemsize]
    if not (p.min() >= low and p.max() <= high):
        p = np.clip(p, low, high)
    np.exp2(p, out=out)


def _planes(features: int, S: int, B: int, room: int, dtype: str) -> Host:
    """Empty planes (features, S, B), as far apart as if there were room for so many replicas.

    Matrix products have other bits where their matrices lie otherwise; so they lie the same, however large S is.
    """
    return np.empty((features, room, B), dtype)[:, :S]


class _Unit:
    """One unit of S replicas on B rows: its buffers, its pass forward and its pass back."""

    def __init__(self, unit: Any, S: int, B: int, room: int, dtype: str, first: bool) -> None:
        I, O = unit.in_features, unit.out_features  # noqa: E741
        self.unit, self.first = unit, first
        self.adds, self.multiplies = type(unit) is not LogNAC, type(unit) is not NAC
        self.gated = self.adds and self.multiplies
        sums, products = slice(0, O if self.adds else 0), slice(O if self.adds else 0, None)
        inputs = I if self.adds else 0
        # Rows and columns of the block matrix.
        self.a, self.p = sums, slice(products.start, products.start + O)
        self.v = slice(2 * O, 3 * O)
        self.x, self.l = slice(0, inputs), slice(inputs, None)
        R, C = O * (self.adds + self.multiplies + self.gated), I * (self.adds + self.multiplies)

        def stack(features: int) -> Host:
            return _planes(features, S, B, room, dtype)

        self.z, self.out, self.d, self.dz = stack(C), stack(R), stack(R), stack(0 if first else C)
        self.r = stack(I)  # |x| + eps
        self.input = self.z[self.x] if self.adds else stack(I)
        self.block, self.dblock = np.zeros((S, R, C), dtype), np.empty((S, R, C), dtype)
        self.t, self.s, self.W, self.dW = (np.empty((I, O, S), dtype) for _ in range(4))
        self.y, self.g, self.h, self.hm = (stack(O) for _ in range(4))

    def logarithms(self) -> None:
        """l = log2(|x| + eps), of the planes in `input`."""
        if self.multiplies:
            np.abs(self.input, out=self.r)
            self.r += self.unit.eps
            np.log2(self.r, out=self.z[self.l])

    def forward(self, params: dict[str, Host]) -> Host:
        """The planes of y, from those in `input`, whose logarithms are taken."""
        np.tanh(params["W_hat"], out=self.t)
        s = self.s
        np.negative(params["M_hat"], out=s)
        np.minimum(s, 80.0, out=s)
        np.exp(s, out=s)
        s += 1.0
        np.divide(1.0, s, out=s)
        np.multiply(self.t, s, out=self.W)  # [weight.1]
        across = self.W.transpose(2, 1, 0)
        if self.adds:
            self.block[:, self.a, self.x] = across
        if self.multiplies:
            self.block[:, self.p, self.l] = across
        if self.gated:
            np.multiply(params["G"].transpose(2, 1, 0), -LOG2E, out=self.block[:, self.v, self.x])
        np.matmul(self.block, self.z.transpose(1, 0, 2), out=self.out.transpose(1, 0, 2))  # [sum.1], p, v
        if not self.multiplies:
            return self.out
        m = self.out[self.p]
        _exp2(m, out=m)  # [product.1]
        if not self.gated:
            return m
        a, g, h, hm, y = self.out[self.a], self.g, self.h, self.hm, self.y
        _exp2(self.out[self.v], out=g)
        g += 1.0
        np.divide(1.0, g, out=g)  # [gate.1]
        np.subtract(1.0, g, out=h)
        np.multiply(g, a, out=y)
        np.multiply(h, m, out=hm)
        y += hm  # [mix.1]
        return y

    def backward(self, dy: Host, gradient: dict[str, Host]) -> Host | None:
        """The parameters' gradients, and the planes of dx unless this is the first unit; dy is overwritten."""
        d = self.d
        if not self.multiplies:
            d = dy
        elif not self.gated:
            np.multiply(dy, self.out[self.p], out=d[self.p])  # [product.1*]
        else:
            a, m, du = self.out[self.a], self.out[self.p], d[self.v]
            np.multiply(dy, self.g, out=d[self.a])  # [mix.1*]
            np.multiply(dy, self.hm, out=d[self.p])  # [mix.1*] then [product.1*]
            np.subtract(a, m, out=du)
            du *= d[self.a]
            du *= self.h  # [mix.1*] then [gate.1*]
        np.matmul(d.transpose(1, 0, 2), self.z.transpose(1, 2, 0), out=self.dblock)
        dW = self.dW
        if self.multiplies:
            np.multiply(self.dblock[:, self.p, self.l].transpose(2, 1, 0), LN2, out=dW)  # [product.2*]
        if self.adds:
            summed = self.dblock[:, self.a, self.x].transpose(2, 1, 0)
            np.add(dW, summed, out=dW) if self.multiplies else np.copyto(dW, summed)  # [sum.2*]
        if self.gated:
            np.copyto(gradient["G"], self.dblock[:, self.v, self.x].transpose(2, 1, 0))  # [gate.2*]
        t, s, dW_hat, dM_hat = self.t, self.s, gradient["W_hat"], gradient["M_hat"]
        np.multiply(dW, s, out=dW)
        np.multiply(dW, t, out=dM_hat)
        np.subtract(1.0, s, out=s)
        np.multiply(dM_hat, s, out=dM_hat)  # [weight.2*]
        np.multiply(t, t, out=t)
        np.subtract(1.0, t, out=t)
        np.multiply(dW, t, out=dW_hat)  # [weight.1*]
        if self.first:
            return None
        if self.gated:
            d[self.v] *= -LN2  # -k G stands in the block
        dz = self.dz
        np.matmul(self.block.transpose(0, 2, 1), d.transpose(1, 0, 2), out=dz.transpose(1, 0, 2))
        if not self.multiplies:
            return dz
        dl = dz[self.l]
        dl /= self.r
        dl *= np.sign(self.input)  # [product.3*]
        return np.add(dz[self.x], dl, out=dl) if self.adds else dl


class Workspace:
    """The buffers in which S replicas take their steps on B rows."""

    def __init__(self, model: Layer, S: int, B: int, dtype: str) -> None:
        units = parts(model)
        room = max(S, chunk(model, B))
        self.units = [_Unit(unit, S, B, room, dtype, first=not i) for i, unit in enumerate(units)]
        self.prefixes = [f"{i}." if isinstance(model, Chain) else "" for i in range(len(units))]
        self.x = self.units[0].input
        self.target, self.e = (_planes(units[-1].out_features, S, B, room, dtype) for _ in range(2))

    def gradients(self, params: dict[str, Host], gradient: dict[str, Host], *, fresh: bool) -> Host:
        """Losses (S); the gradients go into `gradient`. `fresh` says whether the planes in `x` are new."""
        if fresh:
            self.units[0].logarithms()
        y = self.x
        for i, (unit, prefix) in enumerate(zip(self.units, self.prefixes, strict=True)):
            if i:
                np.copyto(unit.input, y)
                unit.logarithms()
            y = unit.forward(_part(params, prefix))
        np.subtract(y, self.target, out=self.e)
        losses: Host = np.einsum("osb,osb->os", self.e, self.e).sum(axis=0)  # rows, then outputs, whatever S is
        size = self.e.shape[0] * self.e.shape[2]
        losses /= size  # [mse.1]
        dy: Any = self.e
        dy *= 2.0 / size  # [mse.1*]
        for unit, prefix in zip(reversed(self.units), reversed(self.prefixes), strict=True):
            dy = unit.backward(dy, _part(gradient, prefix))
        return losses


def _part(params: dict[str, Host], prefix: str) -> dict[str, Host]:
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def planes(theta: Host, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Host]:
    """Named views of parameters (P, S): each (I, O, S)."""
    views: dict[str, Host] = {}
    at = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        views[name] = theta[at : at + size].reshape(*shape, theta.shape[1])
        at += size
    return views


class Trainee:
    """Some replicas in training: their parameters theta (P, S), and Adam's moments, in place [adam.1] [adam.2]."""

    def __init__(self, model: Layer, theta: Host, adam: Adam) -> None:
        self.adam, self.theta = adam, np.ascontiguousarray(theta.T)
        self.m, self.v, self.gradient, self.work = (np.zeros_like(self.theta) for _ in range(4))
        self.before = self.theta.copy()
        self.alive = np.ones(len(theta), np.bool_)
        self.params, self.dparams = (planes(array, model.shapes()) for array in (self.theta, self.gradient))

    def step(self, workspace: Workspace, step: int, *, fresh: bool) -> Host:
        """Losses (S) before the step; a replica in which anything is not finite stays where it was."""
        losses = workspace.gradients(self.params, self.dparams, fresh=fresh)
        adam, g, work = self.adam, self.gradient, self.work
        b1, b2 = adam.betas
        np.copyto(self.before, self.theta)
        self.m *= b1
        np.multiply(g, 1 - b1, out=work)
        self.m += work
        np.multiply(g, g, out=work)
        work *= 1 - b2
        self.v *= b2
        self.v += work
        np.multiply(self.v, 1 / (1 - b2**step), out=work)
        np.sqrt(work, out=work)
        work += adam.eps
        np.divide(self.m, work, out=work)
        work *= adam.lr / (1 - b1**step)
        self.theta -= work
        total = losses.sum() + g.sum() + self.theta.sum() + self.m.sum() + self.v.sum()
        if not (math.isfinite(total) and self.alive.all()):
            finite = np.isfinite(losses)
            for array in (g, self.theta, self.m, self.v):
                finite &= np.isfinite(array).all(axis=0)
            self.alive &= finite
            self.theta[:, ~self.alive] = self.before[:, ~self.alive]
            losses[~self.alive] = np.nan
        return losses
