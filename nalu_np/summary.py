"""What `nalu-np fit` says: the short report for a reader, and the same as one JSON object for a program."""

from __future__ import annotations

import math
from typing import Any

from .errors import printable
from .judge import Rows, rms
from .learn import TRAINED, Candidate, Learned
from .readout import EXACT, Host

#: Rows of the test that are shown one by one: all of a few, or the first of many.
ALL, FIRST = 10, 5


def as_json(learned: Learned, model: str | None) -> dict[str, Any]:
    """The result in plain JSON types; what there is none of is None, never NaN."""
    test = learned.test
    return {
        "target": learned.target,
        "features": list(learned.features),
        "unit": learned.chosen.unit,
        "scale": learned.plan.scale,
        "formula": None if learned.formula is None else str(learned.formula),
        "exact": learned.exact,
        "snapped": learned.snapped,
        "network": learned.unsnapped,
        "train_mse": _mse(learned.trained, learned.trained.network),
        "valid_mse": _mse(learned.held_out, learned.held_out.network),
        "test_mse": None if test is None else _mse(test, test.network),
        "formula_valid_mse": _mse(learned.held_out, learned.held_out.formula) if learned.formula else None,
        "formula_test_mse": _mse(test, test.formula) if learned.formula and test is not None else None,
        "left_one_out": learned.left_one_out,
        "seeds": learned.plan.seeds,
        "agree": learned.chosen.agree,
        "diverged": learned.chosen.diverged,
        "candidates": [_candidate_json(candidate) for candidate in learned.candidates],
        "warnings": list(learned.warnings),
        "model": model,
        "seconds": round(learned.seconds, 3),
    }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "unit": candidate.unit,
        "formula": str(candidate.formula),
        "holds": candidate.holds,
        "valid_mse": _mse(candidate.held_out, candidate.held_out.network),
        "formula_valid_mse": _mse(candidate.held_out, candidate.held_out.formula),
        "agree": candidate.agree,
        "diverged": candidate.diverged,
    }


def _mse(rows: Rows, prediction: Host) -> float | None:
    value = rms(prediction - rows.y) ** 2
    return value if math.isfinite(value) else None


def as_text(learned: Learned, title: str, left_out: tuple[str, ...], test_title: str | None) -> str:
    """The report: what was learned from, the formula, errors inside and outside the range, warnings."""
    target = printable(learned.target)
    known = len(learned.trained.y) + (0 if learned.left_one_out else len(learned.held_out.y))
    lines = [f"{title}: {known:,} rows, {target} from {_names(learned.features)}"]
    if left_out:
        lines.append(f"left out, without a number: {_names(left_out)}")
    if learned.left_one_out:
        lines.append("too few rows to hold any out: each was left out once, to be predicted from the others")
    lines += ["", *_formula_lines(learned, target), "", *_error_lines(learned)]
    if learned.test is not None and test_title is not None:
        lines += ["", *_side_by_side(learned, learned.test, target, test_title)]
    if len(learned.candidates) > 1:
        lines += ["", *_race_lines(learned)]
    lines += [
        "",
        f"{learned.chosen.agree:.0%} of {learned.plan.seeds} seeds agree on {printable(learned.snapped, 200)}"
        f" ({_settings(learned)}, {learned.seconds:.1f} s)",
        *(f"warning: {printable(warning, None)}" for warning in learned.warnings),
    ]
    return "\n".join(lines)


def _settings(learned: Learned) -> str:
    """What the seeds are."""
    plan, unit = learned.plan, learned.chosen.unit
    if unit not in TRAINED:
        return f"{unit} path, each seed weighs the rows anew"
    name = TRAINED[unit].__name__
    return f"{f'{plan.layers} layers of {name}' if plan.layers > 1 else name}, {plan.steps:,} steps"


def _race_lines(learned: Learned) -> list[str]:
    """All units that were trained, the chosen one marked, and why it was chosen."""
    where = "left out one at a time" if learned.left_one_out else "held out"
    lines = [f"{f'RMS error, rows {where}':35}{'network':>12}{'formula':>12}{'seeds':>7}"]
    for candidate in learned.candidates:
        rows, mark = candidate.held_out, "*" if candidate is learned.chosen else " "
        name = candidate.unit if candidate.unit in TRAINED else f"{candidate.unit} path"
        network, formula = (_rmse(rows, prediction) for prediction in (rows.network, rows.formula))
        text = printable(str(candidate.formula), 40)
        zeros = f" ({candidate.left_out:,} rows with a 0 left out)" if candidate.left_out else ""
        lines.append(f"{mark} {name:33}{network:>12}{formula:>12}{candidate.agree:>7.0%}  {text}{zeros}")
    return [*lines, f"  {learned.why}"]


def _rmse(rows: Rows, prediction: Host) -> str:
    mse = _mse(rows, prediction)
    return "undefined" if mse is None else _number(math.sqrt(mse))


def _formula_lines(learned: Learned, target: str) -> list[str]:
    network = [f"    the network computes about {printable(learned.unsnapped, 500)}"]
    if learned.formula is None:
        return [
            f"    no formula: {printable(learned.snapped, 200)} does not hold, see the warnings below",
            *network,
        ]
    shown = next((i for i, error in enumerate(learned.errors) if error > EXACT), 0)
    error, name = learned.errors[shown], learned.unused[shown].name
    kind = "exact" if learned.exact else "about"
    note = f"{kind}: off {_size(error)} on {name}"
    if error <= EXACT and not learned.exact:
        note += ", but not to be called exact, see the warnings"
    return [f"    {target} = {printable(str(learned.formula), 500)}", f"    {note}", *network]


def _size(error: float) -> str:
    if not math.isfinite(error):  # undefined, or the target does not vary at all
        return "beyond measure"
    size = f"{error:.1g}" if error <= EXACT else f"{error:.0%}" if error >= 0.1 else f"{100 * error:.2g}%"
    return f"by {size} of the target's standard deviation"


def _error_lines(learned: Learned) -> list[str]:
    parts = [("trained on", learned.trained)]
    parts.append(("left out one at a time" if learned.left_one_out else "held out", learned.held_out))
    if learned.test is not None:
        outside = learned.outside(learned.test)
        parts += [("test, inside the range", learned.test.pick("inside", ~outside))]
        parts += [("test, outside the range", learned.test.pick("outside", outside))]
    lines = [f"{'RMS error':28}{'rows':>7}{'network':>12}{'formula':>12}"]
    for name, rows in parts:
        if len(rows.y):
            network, formula = (_rmse(rows, prediction) for prediction in (rows.network, rows.formula))
            shown = formula if learned.formula is not None else "-"
            lines.append(f"  {name:26}{len(rows.y):>7,}{network:>12}{shown:>12}")
    return lines


def _side_by_side(learned: Learned, rows: Rows, target: str, title: str) -> list[str]:
    lines = [f"{printable(title, 28):28}{target[:18]:>19}{'network':>12}{'formula':>12}"]
    for label, true, network, formula in zip(rows.labels, rows.y, rows.network, rows.formula, strict=True):
        if len(rows.y) > ALL and len(lines) > FIRST:
            lines.append(f"  ... and {len(rows.y) - FIRST:,} more")
            break
        shown = _number(formula) if learned.formula is not None else "-"
        lines.append(f"  {printable(label, 26):26}{_number(true):>19}{_number(network):>12}{shown:>12}")
    return lines


def _names(names: tuple[str, ...]) -> str:
    return printable(", ".join(map(printable, names)), 300)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "undefined"
