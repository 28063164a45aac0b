"""Draws a training run's loss and accuracy over its epochs."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws into files, needs no display

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator, PercentFormatter

TRAIN = dict(color="#4477aa", linestyle="-", marker="o", markersize=3, label="train, during the epoch")
TEST = dict(color="#cc6677", linestyle="--", marker="s", markersize=3, label="test, after it")


def plot_history(history, path: Path) -> None:
    """`history`: a sequence of epochs with train_loss, test_loss, train_accuracy and test_accuracy."""
    epochs = range(1, len(history) + 1)
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")

    loss.plot(epochs, [epoch.train_loss for epoch in history], **TRAIN)
    loss.plot(epochs, [epoch.test_loss for epoch in history], **TEST)
    loss.set(title="Loss", ylabel="mean cross-entropy", yscale="log")

    accuracy.plot(epochs, [epoch.train_accuracy for epoch in history], **TRAIN)
    accuracy.plot(epochs, [epoch.test_accuracy for epoch in history], **TEST)
    accuracy.set(
        title=f"Accuracy (test, at the end: {history[-1].test_accuracy:.2%})", ylabel="digits read right"
    )
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))

    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
