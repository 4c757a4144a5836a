"""scikit-learn's face of `learn`: an estimator for model selection, pipelines, and rows that come in parts.

Nothing else in the package imports scikit-learn, and the package imports this module only when it is asked for
`NALURegressor`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import OptionError, ShapeError, TableError
from .learn import UNITS, Plan, learn, predict
from .tasks.tables import Table

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_array, check_random_state, metadata_routing
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:  # or a version before 1.6, which has no validate_data
    raise ImportError(
        "NALURegressor needs scikit-learn 1.6 or newer: python -m pip install '.[sklearn]' in the project's folder"
    ) from error

Host = NDArray[np.float64]

DTYPES = ("float32", "float64")


class NALURegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A law of the columns of X: y = W . x or y = prod x_i^W_i, its weights rounded to multiples of 1/2.

    What `nalu-np fit` does, for arrays: units are trained on some rows, others decide which is taken, and its
    weights are read as a formula. Several outputs are laws of their own, learned one after the other.

    Laws need columns as they were measured. A StandardScaler before this estimator subtracts the means, and no
    product survives that.

    Parameters
    ----------
    unit : str
        "auto" lets a sum path and a product path race; "sum" and "product" are one of them; "nalu", "nac" and
        "lognac" are the units of the paper, trained by gradients.
    scale : bool
        Learn one constant besides, which multiplies the whole; for "auto", "sum" and "product".
    seeds : int
        Replicas, whose agreement tells how much of the result is luck.
    random_state : int, RandomState or None
        An int S gives what `nalu-np fit --seed S` gives. It decides which rows are held out, among others.
    layers, steps : int
        Of units trained by gradients: how many one after the other, and how many steps of Adam.
    lr : float
        Its step size.
    batch : int or None
        Rows a step; None is 128, or all if there are fewer.
    dtype : str
        "float32" or "float64", in which they are trained; `predict` returns float64 anyway.

    Attributes
    ----------
    formula_ : Formula or None
        The law, where one holds. This and the next two are lists, an element for each output, where y has two
        dimensions.
    exact_ : bool
        Whether the formula is the law, by the rows held out and all others.
    learned_ : Learned
        The network, its rivals, the rows that were held out, and how far each is off.
    warnings_ : list of str
        What one should know before trusting any of it; with several outputs each begins with its name: y1, y2 ...
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : array of str
        Their names, where X had names, as a DataFrame has. They are the names in the formula; else x1, x2 ...

    Notes
    -----
    The rows are kept, in the estimator and in its pickle, so that `partial_fit` can learn again.

    References
    ----------
    A. Trask, F. Hill, S. Reed, J. Rae, C. Dyer, P. Blunsom. Neural Arithmetic Logic Units. NeurIPS 2018,
    arXiv:1808.00508.

    Examples
    --------
    >>> import numpy as np, nalu_np as nn
    >>> X = np.random.default_rng(0).uniform(1, 2, (200, 2))
    >>> model = nn.NALURegressor(random_state=0).fit(X, X[:, 0] * X[:, 1])
    >>> print(model.formula_, model.exact_, model.predict([[3.0, 5.0]]).round(6))
    x1 * x2 True [15.]
    >>> Y = np.column_stack([X[:, 0] / X[:, 1], 2.5 * X[:, 0]])
    >>> model = nn.NALURegressor(scale=True, random_state=0).fit(X, Y)
    >>> print(*model.formula_, model.predict([[3.0, 4.0]], formula=True).round(6), sep=", ")
    x1 / x2, 2.5 * x1, [[0.75 7.5 ]]
    """

    # `formula` of predict chooses what is shown; it is no data about the rows that a pipeline might route.
    __metadata_request__predict = {"formula": metadata_routing.UNUSED}  # noqa: RUF012  # as scikit-learn reads it

    def __init__(
        self,
        unit: str = "auto",
        *,
        scale: bool = False,
        seeds: int = 64,
        random_state: int | np.random.RandomState | None = None,
        layers: int = 1,
        steps: int = 20_000,
        lr: float = 1e-2,
        batch: int | None = None,
        dtype: str = "float32",
    ) -> None:
        self.unit = unit
        self.scale = scale
        self.seeds = seeds
        self.random_state = random_state
        self.layers = layers
        self.steps = steps
        self.lr = lr
        self.batch = batch
        self.dtype = dtype

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        # Of what scikit-learn tries: sums with large weights. No product says them, and no unit of the paper.
        tags.regressor_tags.poor_score = self.unit not in ("auto", "sum")
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "learned_")

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn a law for each output.

        Parameters
        ----------
        X : array (N, I)
            Two rows or more; below 20 none is held out, and each is left out once instead.
        y : array (N) or (N, O)
            The outputs.

        Returns
        -------
        NALURegressor
            The estimator itself.

        Raises
        ------
        OptionError
            A ValueError: a parameter has a value outside its choices.
        TableError
            A ValueError: nothing can be learned from these numbers, as by a product where every target is 0.
        ValueError, TypeError
            X or y is not what scikit-learn takes for finite numbers, in as many rows each.
        """
        plan, seed = self._plan(), self._drawn(again=False)
        return self._learn(plan, seed, *self._checked(X, y, reset=True, least=2))

    def partial_fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn from more rows, to the bit as if all had come at once.

        All rows so far, of `fit` too, are learned from again: each call costs as much as a `fit` of all of them.
        After an error the estimator knows what it knew before.

        Parameters
        ----------
        X : array (N, I)
            Rows; two or more at the first call.
        y : array (N) or (N, O)
            The outputs, as many as before.

        Returns
        -------
        NALURegressor
            The estimator itself.

        Raises
        ------
        OptionError, TableError, ShapeError, ValueError, TypeError
            As from `fit`, and where features or outputs are not those of the calls before.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        plan, seed = self._plan(), self._drawn(again=True)
        rows, outputs = self._checked(X, y, reset=False, least=1)
        if outputs.shape[1:] != self._y.shape[1:]:
            raise ShapeError(
                f"NALURegressor: y has shape {outputs.shape}, but in the calls before it was {self._y.shape}; "
                f"give as many outputs, or begin again with fit"
            )
        return self._learn(plan, seed, np.concatenate([self._X, rows]), np.concatenate([self._y, outputs]))

    def predict(self, X: ArrayLike, *, formula: bool = False) -> Host:
        """Predict the outputs for rows X.

        Parameters
        ----------
        X : array (N, I)
            Rows.
        formula : bool
            By the formula, with its rounded weights; else by the network.

        Returns
        -------
        array (N) or (N, O), as y was
            In float64; NaN or infinity where a quotient or a root has no value.

        Raises
        ------
        OptionError
            If a formula is asked for, and for some output there is none that holds.
        NotFittedError, ValueError, TypeError
            Before `fit`; or X is not what scikit-learn takes for finite numbers in as many columns.
        """
        check_is_fitted(self)
        rows: Host = validate_data(self, X, dtype="float64", reset=False)
        found = self.learned_ if isinstance(self.learned_, list) else [self.learned_]
        if formula:
            missing = [each.target for each in found if each.formula is None]
            if missing:
                raise OptionError(
                    f"NALURegressor: no formula holds for {', '.join(missing)}; warnings_ says why, and predict "
                    f"without formula=True asks the network"
                )
            columns = [each.chosen.formula(rows)[:, 0] for each in found]
        else:
            columns = [predict(each.layer, each.params, rows) for each in found]
        return np.stack(columns, axis=1) if isinstance(self.learned_, list) else columns[0]

    # --- what fit is made of ------------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        """The parameters as a plan; what came as a NumPy number leaves as Python's."""
        count = "a whole number >= 1"
        positive = isinstance(self.lr, Real) and not isinstance(self.lr, bool) and 0 < float(self.lr) < np.inf
        for name, expected, fits in (
            ("unit", f"one of {', '.join(UNITS)}", isinstance(self.unit, str) and self.unit in UNITS),
            ("scale", "True or False", isinstance(self.scale, bool | np.bool_)),
            ("seeds", count, _is_count(self.seeds)),
            ("layers", count, _is_count(self.layers)),
            ("steps", count, _is_count(self.steps)),
            ("lr", "a finite number > 0", positive),
            ("batch", f"{count}, or None", self.batch is None or _is_count(self.batch)),
            ("dtype", "'float32' or 'float64'", isinstance(self.dtype, str) and self.dtype in DTYPES),
        ):
            if not fits:
                raise OptionError(f"NALURegressor: {name} must be {expected}, got {getattr(self, name)!r:.60}")
        return Plan(
            unit=self.unit,
            scale=bool(self.scale),
            seeds=int(self.seeds),
            layers=int(self.layers),
            steps=int(self.steps),
            lr=float(self.lr),
            batch=None if self.batch is None else int(self.batch),
            dtype=self.dtype,
        )

    def _drawn(self, *, again: bool) -> int:
        """The seed of a run: the int itself, or a draw from the state; for more rows, what was drawn before."""
        try:
            state = check_random_state(self.random_state)
        except ValueError as error:
            raise OptionError(f"NALURegressor: random_state: {error}") from None
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return self._seed if again else int(state.randint(2**31 - 1))

    def _checked(self, X: ArrayLike, y: ArrayLike, *, reset: bool, least: int) -> tuple[Host, Host]:
        rows, outputs = validate_data(
            self, X, y, reset=reset, dtype="float64", multi_output=True, y_numeric=True, ensure_min_samples=least
        )
        # Where several outputs are allowed, scikit-learn leaves y as it comes, also as text, or sparse.
        return rows, check_array(outputs, dtype="float64", ensure_2d=False, input_name="y", estimator=self)

    def _learn(self, plan: Plan, seed: int, X: Host, y: Host) -> Self:
        names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        names = names or [f"x{i + 1}" for i in range(X.shape[1])]
        several = y.ndim == 2
        learned = []
        for i, output in enumerate(y.reshape(len(y), -1).T):
            target = f"y{i + 1}" if several else "y"
            while target in names:
                target += "_"
            rows = range(len(X))
            table = Table(
                "NALURegressor",
                (*names, target),
                np.column_stack([X, output]),
                (),
                tuple(rows),
                tuple(f"row {n}" for n in rows),
            )
            try:
                learned.append(learn(table, target, plan=replace(plan, seed=seed)))
            except TableError as error:
                raise TableError(_in_python(str(error))) from None
        self.formula_ = [each.formula for each in learned] if several else learned[0].formula
        self.exact_ = [each.exact for each in learned] if several else learned[0].exact
        self.learned_ = learned if several else learned[0]
        self.warnings_ = [
            (f"{each.target}: " if len(learned) > 1 else "") + _in_python(text)
            for each in learned
            for text in each.warnings
        ]
        self._X, self._y, self._seed = X.copy(), y.copy(), seed
        return self


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _in_python(text: str) -> str:
    """A message of `learn` in the words of this class: its options are parameters, its lines are rows of X."""
    text = text.replace(" (--features)", "")
    text = re.sub(r"^NALURegressor: line (?=\d)", "NALURegressor: row ", text)
    return re.sub(r"(?<!\S)(\(?)--(?=(?:unit|scale|steps|lr|dtype)\b)", r"\1", text)
