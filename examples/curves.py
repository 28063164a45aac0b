"""Draws training runs' loss and accuracy over their epochs into a figure.

A history is a sequence of epochs with train_loss, test_loss, train_accuracy and test_accuracy.
"""

from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

SIZE = (9, 3.6)  # inches

BLUE = dict(color="#4477aa", linestyle="-", marker="o", markersize=3)
RED = dict(color="#cc6677", linestyle="--", marker="s", markersize=3)


def plot_history(history, figure) -> None:
    """One run's loss and accuracy, on the training and on the test images."""
    loss, accuracy = figure.subplots(1, 2)
    for part, style in (("train", BLUE), ("test", RED)):
        label = {"train": "train, during the epoch", "test": "test, after it"}[part]
        _plot(loss, history, f"{part}_loss", label, style)
        _plot(accuracy, history, f"{part}_accuracy", label, style)
    loss.set_title("Loss")
    accuracy.set_title(f"Accuracy (test, at the end: {history[-1].test_accuracy:.2%})")
    _finish(loss, accuracy)


def plot_two_histories(histories, figure) -> None:
    """The training loss and the test accuracy of two runs, `histories` by their names."""
    loss, accuracy = figure.subplots(1, 2)
    for (name, history), style in zip(histories.items(), (BLUE, RED), strict=True):
        _plot(loss, history, "train_loss", name, style)
        _plot(accuracy, history, "test_accuracy", name, style)
    loss.set_title("Training loss, during the epoch")
    accuracy.set_title("Test accuracy, after it")
    _finish(loss, accuracy)


def _plot(axes, history, figure_of_epoch, label, style):
    values = [getattr(epoch, figure_of_epoch) for epoch in history]
    axes.plot(range(1, len(history) + 1), values, label=label, **style)


def _finish(loss, accuracy):
    loss.set(ylabel="mean cross-entropy", yscale="log")
    _ticks_within_a_decade(loss.yaxis)
    accuracy.set_ylabel("digits read right")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max(len(line.get_xdata()) for line in axes.lines) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)


def _ticks_within_a_decade(axis):
    """Plain numbers, as there may be no power of ten among them; over more the log scale's own ticks do."""
    low, high = axis.get_view_interval()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
        axis.axes.set_ylim(low, high)
