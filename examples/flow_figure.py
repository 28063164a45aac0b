"""Draws the runs of gradient_flow.py: gradient norms over depth before and after training, and the losses."""

import numpy as np

STYLES = {
    "plain": dict(color="#cc6677", marker="o"),
    "residual": dict(color="#4477aa", marker="s"),
    "batch norm": dict(color="#117733", marker="^"),
    "residual, batch norm": dict(color="#aa7722", marker="D"),
}


def draw_into(figure, runs) -> None:
    """A row for each initialisation; columns: gradients before, gradients after, losses."""
    initialisations = list(dict.fromkeys(initialisation for _, initialisation in runs))
    rows = figure.subplots(len(initialisations), 3, sharex="col", squeeze=False)
    for before, after, loss in rows:  # one scale for all norms, and one for all losses
        before.sharey(rows[0][0])
        after.sharey(rows[0][0])
        loss.sharey(rows[0][2])
    for initialisation, (before, after, loss) in zip(initialisations, rows, strict=True):
        for (name, other), run in runs.items():
            if other != initialisation:
                continue
            draw_norms(before, run.before, name)
            draw_norms(after, run.after, name)
            # Of each step and up to nine before it: a single batch's loss jumps.
            means = [run.losses[max(0, at - 9) : at + 1].mean() for at in range(len(run.losses))]
            style = {**STYLES[name], "marker": None}
            loss.plot(range(1, len(means) + 1), means, label=name, linewidth=1.4, **style)
        before.set(title=f"{initialisation} initialisation, at the start", ylabel="gradient norm ‖g‖")
        after.set(title=f"{initialisation} initialisation, after training")
        loss.set(
            title=f"{initialisation} initialisation, training loss",
            ylabel="cross-entropy",
            yscale="log",
        )
        loss.axhline(np.log(10), color="#888888", linewidth=0.8, linestyle=":")
        loss.annotate(
            "guessing", (0.99, np.log(10)), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            xytext=(0, 3), textcoords="offset points", fontsize=8, color="#666666",
        )  # fmt: skip
    for before, after, loss in rows[-1:]:
        before.set_xlabel("convolution, from the first to the last")
        after.set_xlabel("convolution, from the first to the last")
        loss.set_xlabel("step (mean of the last ten)")
    for axes in rows.flat:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)


def draw_norms(axes, report, name) -> None:
    """The convolutions' norms; one of zero has no place on a log scale and stands on the lower edge."""
    norms = np.array([layer.gradient_norm for layer in report.layers[:-1]])  # without the linear layer
    depth = np.arange(1, len(norms) + 1)
    axes.set_yscale("log")
    axes.plot(
        depth, np.where(norms > 0, norms, np.nan), label=name, markersize=3, linewidth=1.2, **STYLES[name]
    )
    zero = norms == 0
    if zero.any():
        axes.plot(depth[zero], np.zeros(zero.sum()), transform=axes.get_xaxis_transform(), clip_on=False,
                  linestyle="", marker="v", markersize=5, color=STYLES[name]["color"])  # fmt: skip
        axes.annotate("zero", (depth[zero].mean(), 0.03), xycoords=("data", "axes fraction"), ha="center",
                      fontsize=8, color=STYLES[name]["color"])  # fmt: skip
