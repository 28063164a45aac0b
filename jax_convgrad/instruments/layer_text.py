"""A convolution layer as one line of text, "8x56x56x64, 3x3, 64, stride 2", and as shapes.

The line is x's shape with the channels last, the filter's taps and the output channels, then any of:

    stride 2          or 2x1, one for each spatial dimension
    pad 1             or 1x2; 0:1 is low:high, -1 crops; "pad same" and "pad valid" mean what they do in conv
    dilation 2        of the filter
    groups 32
    transposed        the layer that undoes the strided convolution: stride makes the output larger,
                      and pad is the padding of the convolution undone

A pooling layer is x's shape and the window, as in "1x6x6x1, max 3x3, stride 2" or "1x6x6x1, avg 3x3", then
any of stride (1 if not given), pad, dilation and, for avg, "exclude pad": padding is then not counted in the
mean. The word may also come first: "max 1x6x6x1, 3x3, stride 2".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jax_convgrad.geometry import ConvGeometry, conv_geometry, dilated, pads

_MOST = 2**30 - 1  # of any number, which keeps the arithmetic of the kernels within 64 bits
_FORM = 'a layer is "8x56x56x64, 3x3, 64", then stride, pad, dilation, groups, transposed'
_POOL_FORM = 'a pooling layer is "1x6x6x1, max 3x3" (or avg), then stride, pad, dilation, exclude pad'


@dataclass(frozen=True)
class Layer:
    """A layer's shapes and steps, one entry an axis; ``pad`` is (low, high).

    ``pool`` is "max" or "avg" in a pooling layer, whose taps are its window and whose channels are groups of
    one; in a convolution it is "".
    """

    batch: int
    input: tuple[int, ...]
    in_channels: int
    taps: tuple[int, ...]
    out_channels: int
    stride: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    pool: str = ""
    count_include_pad: bool = True

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Padding of the convolution itself; a transposed one has what its filter leaves: (r−1)·d − p."""
        if not self.transposed:
            return self.pad
        reach = [dilated(r, d) - 1 for r, d in zip(self.taps, self.dilation, strict=True)]
        return tuple((e - lo, e - hi) for e, (lo, hi) in zip(reach, self.pad, strict=True))

    @cached_property
    def geometry(self) -> ConvGeometry:
        """The relation along each axis. A transposed layer's input is dilated by the stride."""
        ones = (1,) * len(self.taps)
        return conv_geometry(
            self.input,
            self.taps,
            stride=ones if self.transposed else self.stride,
            padding=self.padding,
            input_dilation=self.stride if self.transposed else ones,
            filter_dilation=self.dilation,
            groups=self.groups,
        )

    @property
    def x_shape(self) -> tuple[int, ...]:
        """[N, spatial..., C]."""
        return (self.batch, *self.input, self.in_channels)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """[taps..., C / groups, K]; a pooling layer has no filter."""
        return (*self.taps, self.in_channels // self.groups, self.out_channels)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """[N, output positions..., K]."""
        return (self.batch, *self.geometry.output_shape, self.out_channels)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of x, w, b, y and their gradients by name; pooling has no w and no b."""
        shapes = {"x": self.x_shape, "y": self.y_shape}
        if not self.pool:
            shapes |= {"w": self.w_shape, "b": (self.out_channels,)}
        return shapes | {f"d{name}": shape for name, shape in shapes.items()}

    def __str__(self) -> str:
        taps = _by(self.taps)
        parts = [
            _by(self.x_shape),
            *([f"{self.pool} {taps}"] if self.pool else [taps, str(self.out_channels)]),
        ]
        pairs = [str(lo) if lo == hi else f"{lo}:{hi}" for lo, hi in self.pad]
        for name, entries, default in (
            ("stride", [str(s) for s in self.stride], "1"),
            ("pad", pairs, "0"),
            ("dilation", [str(d) for d in self.dilation], "1"),
        ):
            if set(entries) != {default}:
                parts.append(f"{name} {_by(entries[:1] if len(set(entries)) == 1 else entries)}")
        if self.groups != 1 and not self.pool:
            parts.append(f"groups {self.groups}")
        parts += ["transposed"] if self.transposed else []
        return ", ".join(parts if self.count_include_pad else [*parts, "exclude pad"])


def _by(entries: Sequence[object]) -> str:
    return "x".join(map(str, entries))


def parse_layer(text: str) -> Layer:
    """The convolution that a line says.

    Raises:
      ValueError: with the part of the line that is wrong, and what it should be.
    """
    layer = parse_layer_or_pool(text)
    if layer.pool:
        raise ValueError(f"{text!r} is a pooling layer, and here a convolution is needed; {_FORM}")
    return layer


def parse_layer_or_pool(text: str) -> Layer:
    """The layer that a line says; it pools if a word precedes its window or input, as in "max 3x3".

    Raises:
      ValueError: with the part of the line that is wrong, and what it should be.
    """
    parts = [part.strip() for part in text.split(",")]
    word, _, rest = parts[0].partition(" ")
    if word.lower() in ("max", "avg") and len(parts) > 1:
        parts[:2] = [rest.strip(), f"{word} {parts[1]}"]
    is_pool = len(parts) > 1 and parts[1][:1].isalpha()
    if len(parts) < (2 if is_pool else 3):
        raise ValueError(f"layer {text!r} should have an input, a filter and output channels; {_FORM}")
    batch, *spatial, channels = sizes(parts[0], "the input", at_least=3)
    axes = len(spatial)
    if axes > 3:
        raise ValueError(f"the input {parts[0]!r} should have 1 to 3 spatial dimensions, not {axes}")
    pool, window, what = "", parts[1], "the filter"
    if is_pool:
        pool, _, window = window.partition(" ")
        pool, what = pool.lower(), "the window"
        if pool not in ("max", "avg"):
            raise ValueError(f"the window {parts[1]!r} should begin with max or avg; {_POOL_FORM}")
    taps = sizes(window, what)
    if len(taps) != axes:
        raise ValueError(
            f"{what} {window!r} should have {axes} sizes, one for each spatial dimension of the input"
        )
    out_channels = channels if is_pool else sizes(parts[2], "the output channels", exactly=1)[0]
    options = _options(parts[2:] if is_pool else parts[3:], is_pool)

    stride = _each(options.get("stride", "1"), axes, "stride")
    dilation = _each(options.get("dilation", "1"), axes, "dilation")
    (groups,) = sizes(options.get("groups", str(channels) if is_pool else "1"), "groups", exactly=1)
    for name, count in (("input", channels), ("output", out_channels)):
        if count % groups:
            raise ValueError(f"groups {groups} should divide the {count} {name} channels")
    transposed = "transposed" in options
    spans = [dilated(r, d) for r, d in zip(taps, dilation, strict=True)]
    pad = _pads(options.get("pad", "0"), spatial, spans, stride, transposed)
    exclude = options.get("exclude")
    if exclude not in (None, "pad"):
        raise ValueError(f"'exclude {exclude}' is not known; {_POOL_FORM}")
    if exclude and pool == "max":
        raise ValueError("'exclude pad' is for avg; padding never is the maximum")
    shape = batch, tuple(spatial), channels, taps, out_channels
    layer = Layer(*shape, stride, pad, dilation, groups, transposed, pool, exclude is None)
    if 0 in layer.geometry.output_shape:
        raise ValueError(f"layer {text!r} has no output: {what} is larger than the padded input")
    return layer


def sizes(text: str, name: str, *, at_least: int = 1, exactly: int | None = None) -> tuple[int, ...]:
    """Positive numbers with an x between them.

    Raises:
      ValueError: it is something else, or not as many; the message calls it ``name``.
    """
    entries = text.strip().lower().split("x")
    if not all(entry.strip().isascii() and entry.strip().isdigit() and int(entry) > 0 for entry in entries):
        raise ValueError(f"{name} {text!r} should be positive numbers with an x between them")
    numbers = tuple(map(int, entries))
    if max(numbers) > _MOST:
        raise ValueError(f"{name} {text!r} should be numbers below 2^30")
    if len(numbers) < at_least or (exactly is not None and len(numbers) != exactly):
        several = f"at least {at_least} numbers with an x between them, as in 8x56x56x64"
        wanted = several if exactly is None else f"{exactly} number"
        raise ValueError(f"{name} {text!r} should be {wanted}")
    return numbers


def _options(parts: list[str], is_pool: bool) -> dict[str, str]:
    known = ("stride", "pad", "dilation", *(("exclude",) if is_pool else ("groups", "transposed")))
    options: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition(" ")
        name, value = name.lower(), value.strip()
        if name not in known:
            raise ValueError(f"{part!r} is not known; {_POOL_FORM if is_pool else _FORM}")
        if name in options:
            raise ValueError(f"{name} is given twice")
        if (name == "transposed") != (value == ""):
            raise ValueError(f"{part!r} should be {'without a value' if value else 'a name and a value'}")
        options[name] = value
    return options


def _each(text: str, axes: int, name: str) -> tuple[int, ...]:
    numbers = sizes(text, name)
    if len(numbers) not in (1, axes):
        raise ValueError(f"{name} {text!r} should be one number, or {axes}: one for each spatial dimension")
    return numbers * axes if len(numbers) == 1 else numbers


def _pads(
    text: str, inputs: list[int], spans: list[int], stride: tuple[int, ...], transposed: bool
) -> tuple[tuple[int, int], ...]:
    if text.lower() in ("same", "valid"):
        if transposed and text.lower() == "same":
            raise ValueError("pad of a transposed layer should be numbers, not 'same'")
        return pads(text, inputs, spans, stride)
    pairs = []
    for entry in text.split("x"):
        match = re.fullmatch(r"\s*(-?\d+)(?::(-?\d+))?\s*", entry, re.ASCII)
        if not match:
            raise ValueError(f"pad {text!r} should be numbers or low:high, with an x between, same or valid")
        low, high = int(match[1]), int(match[2] or match[1])
        if max(abs(low), abs(high)) > _MOST:
            raise ValueError(f"pad {text!r} should be numbers below 2^30")
        pairs.append((low, high))
    if len(pairs) not in (1, len(inputs)):
        raise ValueError(f"pad {text!r} should be one, or {len(inputs)}: one for each spatial dimension")
    return tuple(pairs * len(inputs) if len(pairs) == 1 else pairs)
