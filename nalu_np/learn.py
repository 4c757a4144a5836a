"""Learning a law from a table: train many seeds, choose one, read its formula, and say how far to trust it.

Rows that training does not use decide. Where there are 20 or more, a fifth is held out; below that each row is
left out once, and the formula that was learned without it is held against it.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import SPLIT, Streams, from_numpy, to_numpy
from .errors import TableError, printable
from .judge import GOOD, Rows, is_exact, missed_rows, rival, rms
from .layer import Layer, chain, replica
from .optim import Adam
from .readout import EXACT, Formula, Host, formula
from .tasks.tables import Table
from .train import Result, Segment, fit
from .units import NAC, NALU, LogNAC

UNITS: dict[str, type[Layer]] = {"nalu": NALU, "nac": NAC, "lognac": LogNAC}

#: Below this number of rows none is held out: each is left out once instead.
FEW_ROWS = 20

#: A gate this far from its branch takes part in the other path.
DRIFT = 0.1


@dataclass(frozen=True)
class Plan:
    """How to train."""

    unit: str = "nalu"
    layers: int = 1
    seeds: int = 64
    steps: int = 20_000
    lr: float = 1e-2
    batch: int | None = None
    dtype: str = "float32"
    seed: int = 0

    def model(self, features: int) -> Layer:
        """The units one after the other; hidden layers have two outputs, as in the paper."""
        sizes = [features, *[2] * (self.layers - 1), 1]
        units = [UNITS[self.unit](i, o) for i, o in itertools.pairwise(sizes)]
        return units[0] if len(units) == 1 else chain(*units)


@dataclass(frozen=True)
class Learned:
    """What was learned, and what is known about it.

    Attributes
    ----------
    target, features, plan
        What was asked.
    layer, params
        The network that was chosen: one replica.
    unsnapped : str
        What it computes, its weights to three decimals and its gates resolved.
    formula : Formula or None
        Its formula, where it holds well enough to be shown.
    snapped : str
        The same as text, also where it does not hold.
    exact : bool
        Whether the formula is the law: constants 0, +-1/2, +-1, gates resolved, and on rows not used for training
        an RMS error of at most 1e-6 of the target's standard deviation; and every row known agrees, none of the
        formulas that `judge.rival` tries fits them as well, and no constant or repeated column is in it.
    errors : tuple of float
        Of the snapped formula on the rows held out and those of the test, relative to the standard deviation of
        the table's target, or of these rows' if that is larger.
    trained, held_out, test : Rows
        Rows trained on, rows used to choose (held out, or left out one at a time), and the test's, if any.
    left_one_out : bool
        Whether rows were left out one at a time.
    usable : bool
        Whether any seed learned anything.
    spread : float
        Standard deviation of the target.
    branch : array
        The side, 0 or 1, on which each gate of the network is in the rows trained on.
    agree : float
        Share of all seeds, diverged ones included, whose formula is the same expression.
    diverged : int
        Seeds that diverged.
    warnings : tuple of str
        What a reader should know before trusting any of it.
    seconds : float
        Wall time.
    """

    target: str
    features: tuple[str, ...]
    plan: Plan
    layer: Layer
    params: dict[str, Any]
    unsnapped: str
    formula: Formula | None
    snapped: str
    exact: bool
    errors: tuple[float, ...]
    trained: Rows
    held_out: Rows
    test: Rows | None
    left_one_out: bool
    usable: bool
    spread: float
    branch: Host
    agree: float
    diverged: int
    warnings: tuple[str, ...]
    seconds: float

    @property
    def unused(self) -> list[Rows]:
        """The rows that training has not used."""
        return [self.held_out] if self.test is None else [self.held_out, self.test]

    def outside(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows lie beyond the range of the rows that it was learned from, in any feature."""
        known = np.concatenate([self.trained.x, self.held_out.x])
        return np.asarray(np.any((rows.x < known.min(axis=0)) | (rows.x > known.max(axis=0)), axis=1))


def learn(
    table: Table,
    target: str,
    features: Sequence[str] | None = None,
    test: Table | None = None,
    *,
    plan: Plan | None = None,
    progress: Callable[[Segment], object] | None = None,
) -> Learned:
    """Learn a law from a table.

    Parameters
    ----------
    table : Table
        Two rows or more.
    target : str
        The column to predict.
    features : sequence of str, optional
        The columns to predict it from; all others with numbers if left out.
    test : Table, optional
        Rows for the report, best from outside the range of the table.
    plan : Plan, optional
        How to train.
    progress : callable, optional
        Called with a `Segment` now and then.

    Returns
    -------
    Learned

    Raises
    ------
    TableError
        If a column is missing, or the table cannot be learned from.

    Examples
    --------
    >>> import numpy as np
    >>> from nalu_np.learn import learn, Plan
    >>> from nalu_np.tasks.tables import Table
    >>> x = np.random.default_rng(0).uniform(1, 2, (100, 2))
    >>> values = np.column_stack([x, x[:, 0] * x[:, 1]])
    >>> table = Table("made.csv", ("a", "b", "y"), values, (), tuple(range(100)), ("",) * 100)
    >>> learned = learn(table, "y", plan=Plan(seeds=8, steps=3000))
    >>> print(learned.formula, learned.exact)
    a * b True
    """
    started = time.perf_counter()
    plan = plan or Plan()
    names = _features(table, target, features)
    _check_magnitudes(table, [*names, target], plan.dtype)
    x, y = table.columns(names), table.columns([target])
    if len(x) < 2:
        raise TableError(f"{table.path}: one row teaches nothing; give two or more, better twenty or more")

    model = plan.model(len(names))
    left_one_out = len(x) < FEW_ROWS
    study = (_leave_one_out if left_one_out else _hold_out)(model, plan, names, x, y, progress)
    params = replica(study.result.best_params, study.best)
    found = formula(model, params, x, names=names)
    agree = (study.texts == str(found)) & ~study.result.diverged

    def rows(name: str, labels: tuple[str, ...], x: Host, y: Host) -> Rows:
        return Rows(name, labels, x, y[:, 0], predict(model, params, x), found(x)[:, 0])

    known = rows("the table", table.labels, x, y)
    held_out = known.pick("rows not trained on", study.held_out)
    held_out = replace(held_out, network=study.network, formula=study.formula)
    tested = None
    if test is not None:
        tested = rows("the test rows", test.labels, test.columns(names), test.columns([target]))

    unused = [held_out] if tested is None else [held_out, tested]
    spread = float(np.std(y))
    errors = tuple(part.error(part.formula, spread) for part in unused)
    usable = bool(np.isfinite(study.result.history["loss"]).any())
    holds = usable and not any(
        error > GOOD and part.formula_is_worse() for error, part in zip(errors, unused, strict=True)
    )
    # Rows trained on count too: what was held against a row left out may be another formula than the one shown.
    fits = spread > 0 and max(errors) <= EXACT and all(is_exact(r.formula, r.y, known.y) for r in [known, *unused])
    other = rival(found, x, y[:, 0]) if holds and known.error(known.formula, spread) <= GOOD else None
    guessed = _untold(found, x)
    learned = Learned(
        target=target,
        features=tuple(names),
        plan=plan,
        layer=model,
        params=params,
        unsnapped=str(formula(model, params, x, names=names, snap=False)),
        formula=found if holds else None,
        snapped=str(found),
        exact=holds and found.resolved and fits and other is None and not guessed,
        errors=errors,
        trained=known.pick("rows trained on", study.trained),
        held_out=held_out,
        test=tested,
        left_one_out=left_one_out,
        usable=usable,
        spread=spread,
        branch=gates(model, params, x).mean(axis=0).round(),
        agree=float(agree.mean()),
        diverged=int(study.result.diverged.sum()),
        warnings=(),
        seconds=time.perf_counter() - started,
    )
    return replace(learned, warnings=tuple(_warnings(learned, found, other, guessed, known)))


def predict(layer: Layer, params: Mapping[str, Any], x: Host) -> Host:
    """What one replica computes for rows x (N, I), in float64: (N)."""
    double = {name: from_numpy(to_numpy(value), "float64") for name, value in params.items()}
    with np.errstate(all="ignore"):
        return to_numpy(layer(double, from_numpy(x, "float64"))[0])[:, 0]


# --- the table --------------------------------------------------------------------------------------------------


def _features(table: Table, target: str, features: Sequence[str] | None) -> list[str]:
    table.columns([target])
    names = [name for name in table.names if name != target] if features is None else list(features)
    if not names:
        raise TableError(f"{table.path}: there is no column of numbers besides {printable(target)!r}")
    if target in names or len(set(names)) < len(names):
        raise TableError(f"{table.path}: the features must differ from each other and from the target")
    table.columns(names)
    return names


def _check_magnitudes(table: Table, names: Sequence[str], dtype: str) -> None:
    # Adam squares gradients, and these are products of errors and inputs: fourth powers must not overflow.
    limit = float(np.finfo(dtype).max) ** 0.25
    values = np.abs(table.columns(names))
    if values.max(initial=0.0) > limit:
        row, column = divmod(int(values.argmax()), len(names))
        cure = "rescale the column" + (", or choose --dtype float64" if dtype == "float32" else "")
        raise TableError(
            f"{printable(table.path, None)}: line {table.lines[row]}, column '{printable(names[column])}': "
            f"{values[row, column]:.3g} is too large to train in {dtype} (at most {limit:.0e}); {cure}"
        )


# --- training and choosing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    """Trained seeds, their formulas, and the chosen one with its predictions for rows not trained on."""

    result: Result
    texts: NDArray[np.str_]
    best: int
    trained: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    network: Host
    formula: Host


def _train(model: Layer, plan: Plan, x: Host, y: Host, progress: Any, **more: Any) -> Result:
    rows = x.shape[-2]
    batch = min(plan.batch or 128, rows)
    options = {
        "optimizer": Adam(lr=plan.lr),
        "steps": plan.steps,
        "batch": None if batch == rows else batch,
        "block": max(1, min(32, 4096 // x.shape[-1])),  # of a table of 1,000 columns, not a gigabyte at once
        "replicas": plan.seeds,
        "seed": plan.seed,
        "dtype": plan.dtype,
        "callback": progress,
    }
    return fit(model, x, y, **{**options, **more})


def _hold_out(model: Layer, plan: Plan, names: list[str], x: Host, y: Host, progress: Any) -> _Study:
    """A fifth of the rows chooses the seed."""
    order = Streams(plan.seed, None, SPLIT).generators[0].permutation(len(x))
    held_out = np.isin(np.arange(len(x)), order[: len(x) // 5])
    result = _train(model, plan, x[~held_out], y[~held_out], progress, validation=(x[held_out], y[held_out]))
    found = _formulas(model, result, names, x)
    texts = np.array([str(f) for f in found])
    network = predict(model, replica(result.best_params, result.best), x[held_out])
    snapped = found[result.best](x[held_out])[:, 0]
    return _Study(result, texts, result.best, ~held_out, held_out, network, snapped)


def _leave_one_out(model: Layer, plan: Plan, names: list[str], x: Host, y: Host, progress: Any) -> _Study:
    """Each seed is trained on all rows, and once without each row; its formulas without choose."""
    n, seeds = len(x), plan.seeds
    result = _train(model, plan, x, y, progress)
    others = np.array([np.delete(np.arange(n), i) for i in range(n)]).repeat(seeds, axis=0)
    folds = _train(model, plan, x[others], y[others], progress, replicas=list(range(seeds)) * n)
    network, snapped = np.full((2, n, seeds), np.nan)
    for i in range(n):
        for s in range(seeds):
            params = replica(folds.best_params, i * seeds + s)
            if not folds.diverged[i * seeds + s]:
                network[i, s] = predict(model, params, x[i : i + 1])[0]
                snapped[i, s] = formula(model, params, np.delete(x, i, axis=0), names=names)(x[i : i + 1])[0, 0]
    found = _formulas(model, result, names, x)
    with np.errstate(all="ignore"):
        whole = np.stack([f(x)[:, 0] for f in found], axis=1)
        losses = np.mean((snapped - y) ** 2 + (whole - y) ** 2, axis=0)
    losses[~np.isfinite(losses) | result.diverged] = np.inf
    # This chooses the formula. Of the seeds that found it, the best fit becomes the network.
    texts = np.array([str(f) for f in found])
    first = int(losses.argmin())
    best = int(np.where(texts == texts[first], _lowest(result.history["loss"]), np.inf).argmin())
    every = np.ones(n, np.bool_)
    return _Study(result, texts, best, every, every, network[:, best], snapped[:, first])


def _formulas(model: Layer, result: Result, names: list[str], x: Host) -> list[Formula]:
    """The snapped formula of each seed."""
    seeds = range(len(result.diverged))
    return [formula(model, replica(result.best_params, s), x, names=names) for s in seeds]


def _lowest(losses: Host) -> Host:
    """Lowest loss of each seed over the segments (K, S); infinite where there is none."""
    return np.asarray(np.where(np.isnan(losses), np.inf, losses).min(axis=0))


# --- judging ----------------------------------------------------------------------------------------------------


def _warnings(
    learned: Learned, found: Formula, other: Formula | None, guessed: list[str], known: Rows
) -> Iterator[str]:
    text = printable(str(found), 200)
    if not learned.usable:
        yield "every seed diverged at once, and the network is as good as untrained: lower --lr or rescale columns"
        return
    if learned.spread == 0:
        yield "the target is constant: many formulas give it, and none can be called the law"
    if guessed:
        names = ", ".join(map(printable, guessed))
        yield f"constant, or equal to another column, so that their part in the formula is a guess: {names}"
    if other is not None:
        ours, theirs = (rms(f(known.x)[:, 0] - known.y) for f in (found, other))
        if theirs < ours / 2 and max(learned.errors) > EXACT:
            yield f"{printable(str(other), 200)} fits these rows better than {text}: train longer (--steps)"
        else:
            yield f"these rows cannot tell {text} from {printable(str(other), 200)}, which fits them as well"
    for rows, error in zip(learned.unused, learned.errors, strict=True):
        yield from _misses(rows, error, text, learned.spread)
    for rows in [known, *learned.unused[1:]]:
        missed = int(missed_rows(rows.formula, rows.y, known.y).sum())
        if missed and max(learned.errors) <= EXACT:  # the RMS error does not show it
            yield f"{text} is off by more than rounding in {missed:,} of {len(rows.y):,} rows of {rows.name}"
    hanging = int(off_branch(gates(learned.layer, learned.params, learned.trained.x), learned.branch).sum())
    drifted: tuple[str, ...] = ()
    if learned.test is not None:
        off = off_branch(gates(learned.layer, learned.params, learned.test.x), learned.branch)
        drifted = learned.test.pick("drifted", off).labels
    if not found.resolved:
        yield "the chosen network's gate is undecided: it adds in some rows and multiplies in others"
    elif hanging:
        yield f"the chosen network's gate has not settled: rows trained on in which it mixes both paths: {hanging}"
    if drifted:
        yield (
            f"the network's gate drifts from its choice in {len(drifted)} of the test rows "
            f"({', '.join(map(printable, drifted[:4]))}{' ...' if len(drifted) > 4 else ''}): there it mixes in "
            f"its other path, and its predictions are not to be trusted; the formula has no gate"
        )
    if learned.diverged:
        yield f"{learned.diverged} of {learned.plan.seeds} seeds diverged"
    if learned.agree < 0.5:
        yield f"only {learned.agree:.0%} of the seeds agree on {text}"


def _untold(found: Formula, x: Host) -> list[str]:
    """Columns that the formula uses although the rows say nothing about them: constant, or twins of another."""
    used = {name for term in found.terms for name in _leaves(term)}
    counts = Counter(column.tobytes() for column in x.T)
    return [
        name
        for name, column in zip(found.names, x.T, strict=True)
        if name in used and (counts[column.tobytes()] > 1 or np.ptp(column) == 0)
    ]


def _leaves(node: Any) -> set[str]:
    """Names of the columns in a formula's tree."""
    if isinstance(node, str):
        return {node}
    kind, inner = node
    return _leaves(inner) if kind == "abs" else {name for _, part in inner for name in _leaves(part)}


def _misses(rows: Rows, error: float, text: str, spread: float) -> Iterator[str]:
    undefined = int((~np.isfinite(rows.formula)).sum())
    if undefined:
        yield (
            f"{text} has no finite value for {undefined} of {rows.name}: a root or a quotient of 0 or a "
            f"negative number, or too large a result"
        )
    elif error > GOOD and spread > 0:
        network = rows.error(rows.network, spread)
        size = f"by {error:.2g} times the target's standard deviation" if np.isfinite(error) else "beyond measure"
        beside = f"the network by {network:.2g}" if np.isfinite(network) else "and so does the network"
        yield (
            f"{text} misses {rows.name} {size}, {beside}: the data are noisy, or the law is not one that this "
            f"unit can express"
        )


def gates(layer: Layer, params: Mapping[str, Any], x: Host) -> Host:
    """Every gate of one replica for rows x (N, I), in float64: (N, gates); no columns where there is none."""
    double = {name: from_numpy(to_numpy(value), "float64") for name, value in params.items()}
    with np.errstate(all="ignore"):
        values = layer.values(double, from_numpy(x, "float64"))
    found = [np.broadcast_to(to_numpy(g), (len(x), g.shape[-1])) for n, g in values.items() if n.endswith("g")]
    return np.concatenate([np.zeros((len(x), 0)), *found], axis=1)


def off_branch(g: Host, branch: Host) -> NDArray[np.bool_]:
    """In which rows a gate, (N, gates), is off the branch that it takes in training, (gates)."""
    return np.asarray((np.abs(g - branch) > DRIFT).any(axis=1))
