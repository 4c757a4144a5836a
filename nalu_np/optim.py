"""Optimisers: pure functions on the flat vector of all parameters, (S, P).

state = optimizer.init(theta)
delta, state = optimizer.update(gradient, state, step)        # step counts from 1
theta = theta + delta
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .backend import Array, namespace
from .errors import OptionError

State = tuple[Any, ...]


class Optimizer(Protocol):
    """What `fit` asks of an optimiser; its state is a flat tuple of arrays (S, P)."""

    def init(self, theta: Array) -> State: ...
    def update(self, gradient: Array, state: State, step: int) -> tuple[Any, State]: ...


def _set_number(owner: object, name: str) -> None:
    """Make an option a plain float: a NumPy float64 would silently turn float32 parameters into float64."""
    value = getattr(owner, name)
    if not isinstance(value, float | int | np.floating) or isinstance(value, bool) or not 0 < value < math.inf:
        raise OptionError(f"{type(owner).__name__}: {name} must be a number > 0, got {value!r:.60}")
    object.__setattr__(owner, name, float(value))


@dataclass(frozen=True)
class SGD:
    """Plain gradient descent.

    delta_p = -lr * g_p                                                                   [sgd.1]

    Parameters
    ----------
    lr : float
        Step size, above 0.

    Raises
    ------
    OptionError
        If it is not a number above 0.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> nn.SGD(lr=0.5).update(np.array([[2.0]]), (), 1)
    (array([[-1.]]), ())
    """

    lr: float = 1e-2

    def __post_init__(self) -> None:
        _set_number(self, "lr")

    def init(self, theta: Array) -> State:
        """No state."""
        return ()

    def update(self, gradient: Array, state: State, step: int) -> tuple[Any, State]:
        """delta = -lr g."""
        return -self.lr * gradient, state  # [sgd.1]


@dataclass(frozen=True)
class Adam:
    """Adam, as in Algorithm 1 of its paper.

    m_new_p = b1 * m_p + (1 - b1) * g_p,  v_new_p = b2 * v_p + (1 - b2) * g_p**2          [adam.1]
    delta_p = -lr * (m_new_p / (1 - b1**t)) / (sqrt(v_new_p / (1 - b2**t)) + eps)         [adam.2]

    Parameters
    ----------
    lr : float
        Step size, above 0: what the first step moves each parameter by.
    betas : pair of float
        b1 and b2, the share of the old moment that is kept at each step; 0 <= beta < 1.
    eps : float
        Added to the root, above 0.

    Raises
    ------
    OptionError
        If a number is out of its range.

    Notes
    -----
    eps stands outside the root and after the bias correction, as in the paper and PyTorch; TensorFlow 1 adds it
    before the correction ("epsilon hat"), and Keras' default is 1e-7.

    References
    ----------
    Kingma & Ba 2015, Adam: a method for stochastic optimization, Algorithm 1.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> adam = nn.Adam(lr=0.1)
    >>> delta, state = adam.update(np.array([[3.0, -5.0]]), adam.init(np.zeros((1, 2))), 1)
    >>> delta.round(6)                                  # the first step has length lr, whatever the gradient
    array([[-0.1,  0.1]])
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _set_number(self, "lr")
        _set_number(self, "eps")
        try:
            b1, b2 = (float(beta) for beta in self.betas)
        except (TypeError, ValueError):
            b1 = b2 = math.nan
        if not (0 <= b1 < 1 and 0 <= b2 < 1):
            raise OptionError(f"Adam: betas must be two numbers with 0 <= beta < 1, got {self.betas!r:.60}")
        object.__setattr__(self, "betas", (b1, b2))

    def init(self, theta: Array) -> State:
        """Both moments are 0."""
        zeros = namespace(theta).zeros_like
        return zeros(theta), zeros(theta)

    def update(self, gradient: Array, state: State, step: int) -> tuple[Any, State]:
        """[adam.1] and [adam.2]; the corrections are folded into two numbers, which spares passes."""
        b1, b2 = self.betas
        m, v = state
        m = b1 * m + (1 - b1) * gradient  # [adam.1]
        v = b2 * v + (1 - b2) * (gradient * gradient)  # [adam.1]
        root = namespace(v).sqrt(v * (1 / (1 - b2**step)))  # [adam.2]
        return (-self.lr / (1 - b1**step)) * m / (root + self.eps), (m, v)  # [adam.2]


@dataclass(frozen=True)
class RMSprop:
    """Gradient descent with each step divided by the running root mean square of its gradient.

    v_new_p = alpha * v_p + (1 - alpha) * g_p**2                                          [rmsprop.1]
    delta_p = -lr * g_p / (sqrt(v_new_p) + eps)                                           [rmsprop.2]

    v = 0 before the first step.

    Parameters
    ----------
    lr : float
        Step size, above 0.
    alpha : float
        The share of the old mean square that is kept at each step; 0 < alpha < 1.
    eps : float
        Added to the root, above 0.

    Raises
    ------
    OptionError
        If a number is out of its range.

    Notes
    -----
    Names, alpha, eps and its place outside the root are PyTorch's, whose lr is 0.01. Keras calls alpha rho, with
    0.9, and has eps = 1e-7: `RMSprop(lr, alpha=0.9, eps=1e-7)` is Keras 2, which adds eps outside the root too.
    Keras 3 and TensorFlow add it inside, delta = -lr g / sqrt(v + eps): the same but where |g| is not far above
    sqrt(eps) = 3e-4. There is no momentum, and v is not centred; both are off by default in either library.

    References
    ----------
    Hinton 2012, Neural networks for machine learning, lecture 6e.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> rmsprop = nn.RMSprop(lr=0.1, alpha=0.75)
    >>> delta, state = rmsprop.update(np.array([[3.0, -5.0]]), rmsprop.init(np.zeros((1, 2))), 1)
    >>> delta.round(6)                                  # the first step is lr / sqrt(1 - alpha), for any gradient
    array([[-0.2,  0.2]])
    """

    lr: float = 1e-3
    alpha: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("lr", "alpha", "eps"):
            _set_number(self, name)
        if self.alpha >= 1:
            raise OptionError(f"RMSprop: alpha must be a number with 0 < alpha < 1, got {self.alpha!r}")

    def init(self, theta: Array) -> State:
        """The mean square is 0."""
        return (namespace(theta).zeros_like(theta),)

    def update(self, gradient: Array, state: State, step: int) -> tuple[Any, State]:
        """[rmsprop.1] and [rmsprop.2]."""
        v = self.alpha * state[0] + (1 - self.alpha) * (gradient * gradient)  # [rmsprop.1]
        return -self.lr * gradient / (namespace(v).sqrt(v) + self.eps), (v,)  # [rmsprop.2]
