"""NAC, LogNAC and NALU, alone or stacked, with MSE and Adam on NumPy: a training step in place, plane by plane.

The arrays of a batch are planes (features, S, B), so that every pass runs over long contiguous rows, and all sums
of products are one stacked matrix product each way. For a NALU, with l = log2(|x| + eps) and k = log2(e),

    [a]   [ W'   0 ]                a = x W,  p = l W,  m = 2^p
    [v] = [-kG'  0 ] [x]            v = -k x G,  q = 2^v = exp(-x G),  g = 1 / (1 + q),  1 - g = q / (1 + q)
    [p]   [ 0    W'] [l]            y = g a + (1 - g) m = (a + q m) / (1 + q)

A NAC is the first row alone, a LogNAC the last. Going back, with u = x G,

    da = dy g = dy / (1 + q),  du = dy (a - m) g (1 - g) = da (a - y),  dp = dy (1 - g) m = da q m

and the weights' gradients are the transposed product of the same stack. The tags are those of `vjps`: the
equations are the same, in another order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layer import Chain, Layer, overrides, views
from ..optim import Adam
from ..units import NAC, NALU, LogNAC

Host = NDArray[Any]

LN2, LOG2E = math.log(2), math.log2(math.e)

#: Between these exponents powers of 2 are normal numbers; at the upper end they are infinite.
EXPONENTS = {4: (-126.0, 128.0), 8: (-1022.0, 1024.0)}

#: Numbers of a step's widest stack of planes, or of parameters: few calls, and yet near the processor.
CHUNK = 1 << 19

#: From so many weights on the zeros in the stacked product cost more than a second call.
WIDE = 64

#: What makes a layer the unit whose equations these are; a subclass may add a penalty, a projection, other draws.
EQUATIONS = ("forward", "shapes", "_path")


def parts(model: Layer) -> tuple[Layer, ...]:
    """The units of a model, the first first."""
    return model.layers if isinstance(model, Chain) else (model,)


def kind(unit: Layer) -> type[Layer] | None:
    """NAC, LogNAC or NALU: whose equations a layer has."""
    for known in (LogNAC, NAC, NALU):
        same = (getattr(type(unit), name, None) is getattr(known, name, None) for name in EQUATIONS)
        if isinstance(unit, known) and all(same):
            return known if not isinstance(unit, NALU) or (unit.tied and unit.gate == "matrix") else None
    return None


def supports(model: Layer, loss: str, optimizer: object) -> bool:
    """Whether this kernel trains a model; the answer depends on nothing else."""
    known = type(model) is Chain or not isinstance(model, Chain)
    return known and all(kind(unit) for unit in parts(model)) and loss == "mse" and type(optimizer) is Adam


def chunk(model: Layer, rows: int) -> int:
    """How many replicas to train at once."""
    widest = max(4, *(max(unit.in_features, unit.out_features) for unit in parts(model)))
    return max(1, CHUNK // max(widest * rows, sum(map(math.prod, model.shapes().values()))))


def _planes(features: int, S: int, B: int, room: int, dtype: Any) -> Host:
    """Empty planes (features, S, B), as far apart as if there were room for so many replicas.

    Matrix products have other bits where their matrices lie otherwise; so they lie the same, however large S is.
    """
    return np.empty((features, room, B), dtype)[:, :S]


class _Unit:
    """One unit of S replicas on B rows: its buffers, its pass forward and its pass back.

    `params` and `gradient` (P, S) are its rows of all parameters: W_hat, M_hat, and a NALU's G.
    """

    def __init__(self, unit: Any, params: Host, gradient: Host, B: int, room: int, first: bool) -> None:
        I, O, S, dtype = unit.in_features, unit.out_features, params.shape[1], params.dtype  # noqa: E741
        known = kind(unit)
        self.adds, self.multiplies, self.gated = known is not LogNAC, known is not NAC, known is NALU
        self.eps = getattr(unit, "eps", 0.0)
        rows, columns = O * (1 + 2 * self.gated), I * (self.adds + self.multiplies)

        def stack(features: int) -> Host:
            return _planes(features, S, B, room, dtype)

        z, out, d, dz = stack(columns), stack(rows), stack(rows), stack(0 if first else columns)
        self.x, self.l, self.r = z[:I] if self.adds else stack(I), z[-I:], stack(I if self.multiplies else 0)
        self.out, self.a, self.v, self.p = out, out[:O], out[O : 2 * O], out[-O:]
        self.da, self.du, self.dp = d[:O], d[O : 2 * O], d[-O:]
        self.y = stack(O) if self.gated else out
        self.dy = self.y if self.gated else d  # where the gradient with respect to y is put
        self.dx, self.dl = dz[:I], dz[-I:]
        self.shut: Host | None = None  # where q is held down

        # Parameters (I, O, S), and where a step needs them: in the stack (S, columns, rows).
        params, gradient = params.reshape(-1, I, O, S), gradient.reshape(-1, I, O, S)
        self.W_hat, self.M_hat = params[:2]
        self.G, self.dG, self.dhat = params[-1], gradient[-1], gradient[:2]
        tsW, self.slopes, self.dW = (np.empty((n, I, O, S), dtype) for n in (3, 2, 1))
        (self.t, self.s, self.W), self.ts, self.sW = tsW, tsW[:2], tsW[1:]
        self.one = np.ones((), dtype)
        block, dblock = np.zeros((S, columns, rows), dtype), np.empty((S, columns, rows), dtype)
        self.W_x, self.G_x, self.W_l = _tiles(block, I, O)
        self.dW_x, self.dG_x, self.dW_l = _tiles(dblock, I, O)
        tiles = [(slice(None), slice(None))]
        if self.gated and I * O >= WIDE:
            tiles = [(slice(0, I), slice(0, 2 * O)), (slice(I, None), slice(2 * O, None))]
        z, out, d, dz = (planes.transpose(1, 0, 2) for planes in (z, out, d, dz))
        self.products = [(block[:, c, r].transpose(0, 2, 1), z[:, c], out[:, r]) for c, r in tiles]
        self.dweights = [(z[:, c], d[:, r].transpose(0, 2, 1), dblock[:, c, r]) for c, r in tiles]
        self.dinputs = [(block[:, c, r], d[:, r], dz[:, c]) for c, r in tiles]

    def logarithms(self) -> None:
        """l = log2(|x| + eps)."""
        if self.multiplies:
            np.abs(self.x, out=self.r)
            self.r += self.eps
            np.log2(self.r, out=self.l)  # [product.1]

    def forward(self) -> None:
        """The planes of y, from those of x, whose logarithms are taken."""
        t, s, W, one = self.t, self.s, self.W, self.one
        np.tanh(self.W_hat, out=t)
        np.multiply(self.M_hat, -LOG2E, out=s)
        np.exp2(s, out=s)
        np.add(s, one, out=s)
        np.divide(one, s, out=s)
        np.multiply(t, s, out=W)  # [weight.1]
        if self.adds:
            np.copyto(self.W_x, W)
        if self.multiplies:
            np.copyto(self.W_l, W)
        if self.gated:
            np.multiply(self.G, -LOG2E, out=self.G_x)
        for block, z, out in self.products:
            np.matmul(block, z, out=out)  # [sum.1], v, p
        if self.multiplies:
            self._powers()  # [product.2]
        if self.gated:
            q, m, y = self.v, self.p, self.y
            np.multiply(q, m, out=self.dp)
            np.add(self.a, self.dp, out=y)
            q += one
            y /= q  # [gate.1] [mix.1]
            np.subtract(self.a, y, out=self.du)
            if self.shut is not None:
                self.du[self.shut] = 0.0

    def _powers(self) -> None:
        """m = 2^p, and q = 2^v, in place.

        Where results are subnormal or infinite a processor takes 10 to 100 times as long, so exponents are
        brought within bounds; to look costs little. q is kept so small that q m is finite, for m up to 2^99 in
        float32: there g is 0 beside 1, and has no slope. What is within the bounds stays as it is, whatever its
        neighbours are.
        """
        exponents = self.out[-len(self.y) * (1 + self.gated) :]
        low, high = EXPONENTS[exponents.dtype.itemsize]
        self.shut = None
        least, most = np.minimum.reduce(exponents, axis=None), np.maximum.reduce(exponents, axis=None)
        if not (least >= low and most < high / 2 - 1):
            np.clip(self.p, low, high, out=self.p)
            if self.gated:
                limit = self.dp  # which is not in use yet
                np.clip(self.p, 0.0, 0.78 * high, out=limit)
                np.subtract(high - 2, limit, out=limit)
                self.shut = self.v > limit
                np.minimum(self.v, limit, out=self.v)
                np.maximum(self.v, low, out=self.v)
        np.exp2(exponents, out=exponents)

    def backward(self) -> None:
        """From dy the parameters' gradients, and the planes of da, du and dp."""
        if self.gated:
            np.divide(self.dy, self.v, out=self.da)  # [mix.1*]
            self.du *= self.da  # [mix.1*] then [gate.1*]
            self.dp *= self.da  # [mix.1*] then [product.1*]
        elif self.multiplies:
            self.dp *= self.p  # [product.1*]
        for z, d, dblock in self.dweights:
            np.matmul(z, d, out=dblock)
        dW = self.dW
        if self.multiplies:
            np.multiply(self.dW_l, LN2, out=dW)  # [product.2*]
        if self.gated:
            dW += self.dW_x
            np.copyto(self.dG, self.dG_x)  # [gate.2*]
        elif self.adds:
            np.copyto(dW, self.dW_x)  # [sum.1*]
        # W = t s: W_hat's slope (1 - t^2) s = s - t W, M_hat's t s (1 - s) = W - s W
        np.multiply(self.ts, self.W, out=self.slopes)
        np.subtract(self.sW, self.slopes, out=self.slopes)
        np.multiply(self.slopes, dW, out=self.dhat)  # [weight.1*] [weight.2*]

    def backward_to(self, dx: Host) -> None:
        """The planes of dx, after `backward`."""
        if self.gated:
            self.du *= -LN2  # -k G stands in the block
        for block, d, dz in self.dinputs:
            np.matmul(block, d, out=dz)  # [sum.2*] [gate.3*]
        if not self.multiplies:
            np.copyto(dx, self.dx)
            return
        self.dl /= self.r
        np.sign(self.x, out=self.r)
        np.multiply(self.dl, self.r, out=dx)  # [product.3*]
        if self.adds:
            dx += self.dx


def _tiles(block: Host, I: int, O: int) -> tuple[Host, Host, Host]:  # noqa: E741
    """Where W stands beside x, -k G beside x, and W beside l, each (I, O, S), in the stack (S, columns, rows)."""
    across = block.transpose(1, 2, 0)
    return across[:I, :O], across[:I, O : 2 * O], across[-I:, -O:]


def planes(theta: Host, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Host]:
    """Named views (S, I, O) of parameters (P, S)."""
    named: dict[str, Host] = {}
    at = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        named[name] = np.moveaxis(theta[at : at + size].reshape(*shape, theta.shape[1]), -1, 0)
        at += size
    return named


class Trainee:
    """Some replicas in training: their parameters theta (P, S), and Adam's moments m and v, in place."""

    def __init__(self, model: Layer, theta: Host, adam: Adam) -> None:
        S, P = theta.shape
        self.model, self.adam = model, adam
        self.penalised, self.projected = overrides(model, "penalty"), overrides(model, "project")
        #: What a step records.
        self.names = ("loss", "penalty") if self.penalised else ("loss",)
        # Moments, parameters and records are one array, which one pass finds to be finite.
        self.state = np.zeros((3 * P + len(self.names), S), theta.dtype)
        self.m, self.v, self.theta = self.state[: 3 * P].reshape(3, P, S)
        self.checked, self.records = self.state[P:].reshape(-1), self.state[3 * P :]
        self.theta[...] = theta.T
        self.before, self.alive = self.theta.copy(), np.ones(S, np.bool_)
        self.g, self.squares, self.work = (np.empty_like(self.theta) for _ in range(3))
        # Numbers in arrays: a float beside an array costs half a call more.
        self.eps, self.lr = np.empty((), theta.dtype), np.empty((), theta.dtype)
        self.betas = [np.array(q, theta.dtype) for beta in adam.betas for q in (beta, 1 - beta)]
        self.any_frozen = False
        self.params, self.dparams = (planes(array, model.shapes()) for array in (self.theta, self.g))

    def update(self, step: int) -> None:
        """Adam, and the projection; a replica in which anything is not finite stays where it was."""
        b1, one_b1, b2, one_b2 = self.betas
        g, m, v, squares, work = self.g, self.m, self.v, self.squares, self.work
        np.multiply(g, g, out=squares)
        np.multiply(g, one_b1, out=g)
        np.multiply(squares, one_b2, out=squares)
        np.multiply(m, b1, out=m)
        np.multiply(v, b2, out=v)
        np.add(m, g, out=m)  # [adam.1]
        np.add(v, squares, out=v)
        root = math.sqrt(1 - self.adam.betas[1] ** step)
        self.eps.fill(self.adam.eps * root)
        self.lr.fill(self.adam.lr * root / (1 - self.adam.betas[0] ** step))
        np.sqrt(v, out=work)
        np.add(work, self.eps, out=work)
        np.divide(m, work, out=work)
        np.multiply(work, self.lr, out=work)
        np.copyto(self.before, self.theta)
        self.theta -= work  # [adam.2]
        if self.projected:
            projected = self.model.project(self.natural())
            for name, value in self.params.items():
                value[...] = projected[name]
        # Where m is not finite, v or theta is not either; a sum of squares is finite only where all terms are.
        if self.any_frozen or not math.isfinite(np.dot(self.checked, self.checked)):
            self._freeze()

    def natural(self) -> dict[str, Host]:
        """Parameters as layers have them, (S, I, O) side by side: sums over others have bits that depend on S."""
        return views(np.ascontiguousarray(self.theta.T), self.model.shapes())

    def _freeze(self) -> None:
        self.alive &= np.isfinite(self.state).all(axis=0)
        self.theta[:, ~self.alive] = self.before[:, ~self.alive]
        self.records[:, ~self.alive] = np.nan
        self.any_frozen = True


class Workspace:
    """The buffers in which a trainee takes its steps, on the B rows that are put into `x` and `target`."""

    def __init__(self, trainee: Trainee, B: int) -> None:
        self.trainee, model = trainee, trainee.model
        trainee.any_frozen = not trainee.alive.all()
        S, dtype = len(trainee.alive), trainee.theta.dtype
        room = max(S, chunk(model, B))
        self.units: list[_Unit] = []
        at = 0
        for unit in parts(model):
            rows = slice(at, at := at + sum(map(math.prod, unit.shapes().values())))
            first = not self.units
            self.units.append(_Unit(unit, trainee.theta[rows], trainee.g[rows], B, room, first))
        self.pairs = list(itertools.pairwise(self.units))
        self.x, last = self.units[0].x, self.units[-1]
        self.y, self.e = last.y, last.dy
        self.target = _planes(len(self.y), S, B, room, dtype)
        # A replica's outputs lie together: a sum over rows of all replicas has bits that depend on how many.
        self.squares, self.losses = np.empty((S, len(self.y)), dtype).T, trainee.records[0]
        size = len(self.y) * B
        self.mean, self.slope = np.array(1 / size, dtype), np.array(2 / size, dtype)

    def step(self, step: int, *, fresh: bool) -> Host:
        """What is recorded (names, S) of the state before the step, in an array that the next step overwrites."""
        self.gradients(step, fresh=fresh)
        self.trainee.update(step)
        return self.trainee.records

    def gradients(self, step: int, *, fresh: bool) -> None:
        """Records and gradients of the trainee; `fresh` says whether the planes in `x` are new."""
        trainee, first = self.trainee, self.units[0]
        if fresh:
            first.logarithms()
        first.forward()
        for before, unit in self.pairs:
            np.copyto(unit.x, before.y)
            unit.logarithms()
            unit.forward()

        e = self.e
        np.subtract(self.y, self.target, out=e)
        np.vecdot(e, e, out=self.squares)
        np.add.reduce(self.squares, axis=0, out=self.losses)
        np.multiply(self.losses, self.mean, out=self.losses)  # [mse.1]
        for before, unit in reversed(self.pairs):
            unit.backward()
            unit.backward_to(before.dy)
        first.backward()
        np.multiply(trainee.g, self.slope, out=trainee.g)  # [mse.1*]
        if trainee.penalised:
            self._penalty(step)

    def _penalty(self, step: int) -> None:
        """Added to the gradients by the layers' own code."""
        trainee = self.trainee
        x = np.ascontiguousarray(self.x.transpose(1, 2, 0))
        penalty = trainee.model.penalty(trainee.natural(), x, step)
        trainee.records[1] = 0 if penalty is None else penalty[0]
        if penalty is not None:
            for name, value in penalty[1].items():
                trainee.dparams[name] += value
