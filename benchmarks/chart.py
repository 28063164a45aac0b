"""The front page's bar chart: eight layers and the training step, each peer's time over ours.

python benchmarks/chart.py docs/performance/results.json    # chart-light.svg and chart-dark.svg in its folder

The picture is a function of the results alone and is written without a plotting library, so the same results
give the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import report
from harness import summary
from harness.tasks import ARITHMETICS

TIMES = "\N{MULTIPLICATION SIGN}"
# One layer of each kind, whether we are faster or slower there; docs/performance.md has all layers.
LAYERS = {
    "resnet50.conv1": "ResNet-50: first layer",
    "resnet50.3x3.56": f"ResNet-50: 3{TIMES}3",
    "resnet50.1x1.s2": f"ResNet-50: 1{TIMES}1, stride 2",
    "simplecnn.2": f"A small CNN: 3{TIMES}3",
    "video.3d": f"Video: 3{TIMES}3{TIMES}3",
    "mobilenet.dw.14": f"MobileNet: depthwise 3{TIMES}3",
    "convnext.dw7.56": f"ConvNeXt: depthwise 7{TIMES}7",
    "max.3x3.112": f"Max pooling 3{TIMES}3",
}
TRAINING = "A small CNN: training step"
PEERS = {"lax": "jax.lax", "torch": "PyTorch"}


class Theme(NamedTuple):
    """Colours: blue and orange of a palette that colour-blind readers can tell apart, two greys."""

    background: str
    text: str
    faint: str
    line: str
    lax: str
    torch: str


THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#59636e", "#d1d9e0", "#0072b2", "#d55e00"),
    "dark": Theme("#0d1117", "#f0f6fc", "#9198a1", "#3d444d", "#56b4e9", "#e69f00"),
}

WIDTH, LEFT, RIGHT = 820, 300, 770  # of the picture; where the axis begins and ends
TOP, ROW, BAR = 96, 40, 13
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Row(NamedTuple):
    """A pair of bars."""

    label: str
    detail: str
    ratios: dict[str, float]  # by peer


def layer_ratios(entries: list[dict], peers: list[str]) -> dict[str, float]:
    """Ratios of a layer's total time in a training step: forward pass plus gradients.

    If the forward pass and the gradient were timed as one op, that op is the whole.
    """
    together = [entry for entry in entries if "+" in entry["op"]] or entries

    def total(who):
        return sum(entry["seconds"][who]["median"] for entry in together)

    known = [peer for peer in peers if all(peer in entry["seconds"] for entry in together)]
    return {peer: total(peer) / total(summary.OURS) for peer in known}


def rows(results: dict) -> list[Row]:
    """The rows from the top; an empty list if a layer or the training step was not measured."""
    peers = [peer for peer in summary.peers(results) if peer in PEERS]
    found = []
    for name, label in LAYERS.items():
        entries = [entry for entry in results["layers"] if entry["name"] == name]
        if not entries:
            return []
        found.append(Row(label, entries[0]["layer"], layer_ratios(entries, peers)))
    if not results["training"]:
        return []
    medians = {who: entry["seconds"]["median"] for who, entry in results["training"].items()}
    ratios = {peer: medians[peer] / medians[summary.OURS] for peer in peers if peer in medians}
    detail = f"forward, gradients and Adam: {report.duration(medians[summary.OURS])} ms"
    return [*found, Row(TRAINING, detail, ratios)]


class Axis(NamedTuple):
    """The logarithmic axis, from its lowest to its highest ratio."""

    low: float
    high: float

    @classmethod
    def of(cls, ratios: list[float]) -> Axis:
        """An axis with room for the numbers at the bars' ends."""
        return cls(0.6 * min(0.67, *ratios), 1.9 * max(2, *ratios))

    def at(self, ratio: float) -> float:
        """The place of a ratio in the picture."""
        return LEFT + (RIGHT - LEFT) * math.log(ratio / self.low) / math.log(self.high / self.low)


def text(x: float, y: float, words: str, colour: str, size: int = 13, **more: str) -> str:
    """One line of text."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{attributes}>{escape(words)}</text>'
    )


def grid(axis: Axis, theme: Theme, bottom: float) -> Iterator[str]:
    """Grid lines, their numbers, and the line of equal times."""
    for tick in (tick for tick in TICKS if axis.low < tick < axis.high):
        x, equal = axis.at(tick), tick == 1
        colour, width = (theme.text, 1.5) if equal else (theme.line, 1)
        yield (
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom:.1f}" '
            f'stroke="{colour}" stroke-width="{width}"/>'
        )
        yield text(x, bottom + 17, f"{tick:g}{TIMES}", theme.faint, 12, text_anchor="middle")


def bars(row: Row, top: float, axis: Axis, theme: Theme) -> Iterator[str]:
    """A row's label and, from the line of equal times, its bars with their numbers."""
    yield text(LEFT - 12, top + 13, row.label, theme.text, text_anchor="end")
    yield text(LEFT - 12, top + 28, row.detail, theme.faint, 10, text_anchor="end")
    for number, (peer, ratio) in enumerate(row.ratios.items()):
        y, one, end = top + 2 + number * (BAR + 2), axis.at(1), axis.at(ratio)
        yield (
            f'<rect x="{min(one, end):.1f}" y="{y:.1f}" width="{abs(end - one):.1f}" height="{BAR}" '
            f'fill="{getattr(theme, peer)}"/>'
        )
        x, anchor = (end + 5, "start") if ratio >= 1 else (end - 5, "end")
        yield text(x, y + BAR - 2, report.times(ratio), theme.text, 12, text_anchor=anchor)


def legend(peers: list[str], theme: Theme) -> Iterator[str]:
    """A square and a name for each peer."""
    for number, peer in enumerate(peers):
        x = LEFT + 110 * number
        yield f'<rect x="{x}" y="59" width="{BAR}" height="{BAR}" fill="{getattr(theme, peer)}"/>'
        yield text(x + BAR + 6, 70, PEERS[peer], theme.text)


def conditions(results: dict) -> tuple[str, str]:
    """Machine, threads, dtype, versions and day, in two lines."""
    machine, versions, settings = results["machine"], results["versions"], results["settings"]
    where = (
        f"{machine.get('processor', '')}, {settings['threads']} threads, {machine.get('vectors', '')}; "
        f"{ARITHMETICS[settings['arithmetics'][0]][0]}, batch at most {settings['batch']}"
    )
    names = " ".join(f"{name} {versions[name]}," for name in ("jax", "torch", "python") if name in versions)
    return where, f"{names} {results['date']}: {shlex.join(results['command'])}"


def svg(results: dict, theme: Theme) -> str | None:
    """The picture, or None if something that it shows was not measured."""
    shown = rows(results)
    if not shown:
        return None
    axis = Axis.of([ratio for row in shown for ratio in row.ratios.values()])
    bottom = TOP + ROW * len(shown)
    height = bottom + 74
    where, what = conditions(results)
    peers = [peer for peer in PEERS if any(peer in row.ratios for row in shown)]
    title = "Forward pass and gradients on a CPU: time relative to jax_convgrad"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f"height=\"{height}\" font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\">",
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{theme.background}"/>',
        text(24, 30, title, theme.text, 17, font_weight="600"),
        text(
            24,
            49,
            f"Above 1{TIMES} jax_convgrad is faster, below it slower. The axis is logarithmic.",
            theme.faint,
        ),
        *legend(peers, theme),
        *grid(axis, theme, bottom),
    ]
    for number, row in enumerate(shown):
        parts += bars(row, TOP + ROW * number, axis, theme)
    parts += [
        text(24, bottom + 43, where, theme.faint, 11),
        text(24, bottom + 60, what, theme.faint, 11),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def draw(results: dict, folder: Path) -> list[Path]:
    """Writes the picture for light and for dark pages into ``folder``, if the run has what it shows."""
    drawn = []
    for name, theme in THEMES.items():
        picture = svg(results, theme)
        if picture is not None:
            drawn.append(folder / f"chart-{name}.svg")
            drawn[-1].write_text(picture)
    return drawn


def main() -> None:
    """Draw from a file of results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="a JSON file of run.py")
    parser.add_argument("-o", "--output", type=Path, help="the folder to draw into (default: the file's own)")
    args = parser.parse_args()
    folder = args.output or args.results.parent
    drawn = draw(json.loads(args.results.read_text()), folder)
    if not drawn:
        parser.exit(1, f"{args.results} lacks some of the layers {', '.join(LAYERS)}, or the training step\n")
    print(*drawn, sep="\n")


if __name__ == "__main__":
    main()
