"""Draw the README's picture: three ways to learn a * b from numbers between 1 and 2, asked about larger ones.

Run with the extra `plot` from the project's root:  python docs/extrapolation.py
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import nalu_np as nn

MODELS = {
    "NALU": (nn.NALU(2, 1), "#0072B2", "o"),
    "dense network, ReLU": (nn.chain(nn.Dense(2, 32, activation="relu"), nn.Dense(32, 1)), "#D55E00", "s"),
    "dense network, tanh": (nn.chain(nn.Dense(2, 32, activation="tanh"), nn.Dense(32, 1)), "#009E73", "^"),
}


def main() -> None:
    """Train 16 seeds of each, choose by validation, and draw."""
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, (2000, 2))
    y = x[:, :1] * x[:, 1:]
    t = np.linspace(0.25, 6, 47)
    rows = np.stack([t, t], axis=1).astype("float32")

    figure, axes = plt.subplots(figsize=(7.2, 4.0), dpi=150)
    axes.axvspan(1, 2, color="#DDDDDD", label="trained here")
    axes.plot(t, t * t, color="black", linewidth=5, alpha=0.25, label="a · b")
    for name, (model, color, marker) in MODELS.items():
        result = nn.fit(
            model,
            x[:1600],
            y[:1600],
            validation=(x[1600:], y[1600:]),
            optimizer=nn.Adam(lr=0.01),
            batch=128,
            steps=10_000,
            replicas=16,
        )
        prediction, _ = model(nn.replica(result.best_params, result.best), rows)
        axes.plot(t, prediction[:, 0], color=color, marker=marker, markevery=4, linewidth=1.6, label=name)
        print(f"{name}: at a = b = 6 it says {prediction[-1, 0]:.2f}, the truth is 36")
    axes.set(xlabel="a = b", ylabel="prediction", xlim=(0.25, 6), ylim=(0, 37))
    axes.set_title("Learned from a, b between 1 and 2", loc="left")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
