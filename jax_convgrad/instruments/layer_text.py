"""A convolution layer as one line of text, ``8x56x56x64, 3x3, 64, stride 2``, and as shapes.

The line is x's shape with the channels last, the filter's taps and the output channels, then any of:

    stride 2          or 2x1, one for each spatial dimension
    pad 1             or 1x2; 0:1 is low:high, -1 crops; "pad same" and "pad valid" are the words of ``conv``
    dilation 2        of the filter
    groups 32
    transposed        the layer that undoes the strided convolution: stride makes the output larger,
                      and pad is the padding of the convolution undone
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jax_convgrad.geometry import Axis, ConvGeometry, conv_geometry, dilated, pads

_MOST = 2**30 - 1  # of any number, which keeps the arithmetic of the kernels within 64 bits
_FORM = '"8x56x56x64, 3x3, 64", then stride, pad, dilation, groups, transposed'
_POOL_FORM = '"1x6x6x1, max 3x3" (or avg), then stride, pad, dilation, exclude pad'


@dataclass(frozen=True)
class Layer:
    """A layer's shapes and steps, one entry an axis; ``pad`` is (low, high)."""

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

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Padding of the convolution itself; a transposed one has what its filter leaves: (r−1)·d − p."""
        if not self.transposed:
            return self.pad
        reach = [dilated(r, d) - 1 for r, d in zip(self.taps, self.dilation, strict=True)]
        return tuple((e - lo, e - hi) for e, (lo, hi) in zip(reach, self.pad, strict=True))

    @property
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
        """[taps..., C / groups, K]."""
        return (*self.taps, self.in_channels // self.groups, self.out_channels)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """[N, output positions..., K]."""
        return (self.batch, *self.geometry.output_shape, self.out_channels)

    def __str__(self) -> str:
        parts = [_by(self.x_shape), _by(self.taps), str(self.out_channels)]
        parts += _steps_text(self.stride, self.pad, self.dilation)
        if self.groups != 1:
            parts.append(f"groups {self.groups}")
        if self.transposed:
            parts.append("transposed")
        return ", ".join(parts)


@dataclass(frozen=True)
class Pool:
    """A pooling layer's shapes and steps, one entry an axis; ``kind`` is "max" or "avg".

    As text it is x's shape and the window, ``1x6x6x1, max 3x3, stride 2``, then any of stride (1 where it is
    not said, as in ``max_pool``), pad, dilation and, for avg, "exclude pad", which leaves padding out of the
    mean.
    """

    kind: str
    batch: int
    input: tuple[int, ...]
    channels: int
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    count_include_pad: bool = True

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The relation along each axis."""
        ones = (1,) * len(self.window)
        return conv_geometry(
            self.input,
            self.window,
            stride=self.stride,
            padding=self.pad,
            input_dilation=ones,
            filter_dilation=self.dilation,
            groups=1,
        ).axes

    @property
    def x_shape(self) -> tuple[int, ...]:
        """[N, spatial..., C]."""
        return (self.batch, *self.input, self.channels)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """[N, output positions..., C]."""
        return (self.batch, *(axis.output for axis in self.axes), self.channels)

    def __str__(self) -> str:
        steps = _steps_text(self.stride, self.pad, self.dilation)
        parts = [_by(self.x_shape), f"{self.kind} {_by(self.window)}", *steps]
        return ", ".join(parts if self.count_include_pad else [*parts, "exclude pad"])


def parse_layer(text: str) -> Layer:
    """The layer that a line says.

    Raises:
      ValueError: with the part of the line that is wrong, and what it should be.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 3:
        raise ValueError(f"layer {text!r} should have an input, a filter and output channels: {_FORM}")
    batch, *spatial, channels = _input(parts[0])
    axes = len(spatial)
    taps = _window(parts[1], axes, "the filter")
    (out_channels,) = sizes(parts[2], "the output channels", exactly=1)
    options = _options(
        parts[3:], ("stride", "pad", "dilation", "groups", "transposed"), f"a layer is {_FORM}"
    )

    stride = _each(options.get("stride", "1"), axes, "stride")
    dilation = _each(options.get("dilation", "1"), axes, "dilation")
    (groups,) = sizes(options.get("groups", "1"), "groups", exactly=1)
    for name, count in (("input", channels), ("output", out_channels)):
        if count % groups:
            raise ValueError(f"groups {groups} should divide the {count} {name} channels")
    transposed = "transposed" in options
    spans = [dilated(r, d) for r, d in zip(taps, dilation, strict=True)]
    pad = _pads(options.get("pad", "0"), spatial, spans, stride, transposed)
    layer = Layer(
        batch, tuple(spatial), channels, taps, out_channels, stride, pad, dilation, groups, transposed
    )
    if 0 in layer.geometry.output_shape:
        raise ValueError(f"layer {text!r} has no output: the filter is larger than the padded input")
    return layer


def parse_pool(text: str) -> Pool:
    """The pooling layer that a line says.

    Raises:
      ValueError: with the part of the line that is wrong, and what it should be.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) < 2:
        raise ValueError(f"pooling layer {text!r} should have an input and a window: {_POOL_FORM}")
    batch, *spatial, channels = _input(parts[0])
    axes = len(spatial)
    kind, _, of = parts[1].partition(" ")
    kind = kind.lower()
    if kind not in ("max", "avg"):
        raise ValueError(f"the window {parts[1]!r} should begin with max or avg: {_POOL_FORM}")
    window = _window(of, axes, "the window")
    options = _options(
        parts[2:], ("stride", "pad", "dilation", "exclude"), f"a pooling layer is {_POOL_FORM}"
    )

    stride = _each(options.get("stride", "1"), axes, "stride")
    dilation = _each(options.get("dilation", "1"), axes, "dilation")
    spans = [dilated(r, d) for r, d in zip(window, dilation, strict=True)]
    pad = _pads(options.get("pad", "0"), spatial, spans, stride, False)
    exclude = options.get("exclude")
    if exclude not in (None, "pad"):
        raise ValueError(f"'exclude {exclude}' is not known; a pooling layer is {_POOL_FORM}")
    if exclude and kind == "max":
        raise ValueError("'exclude pad' is for avg; padding never is the maximum")
    pool = Pool(kind, batch, tuple(spatial), channels, window, stride, pad, dilation, exclude is None)
    if 0 in pool.y_shape:
        raise ValueError(f"layer {text!r} has no output: the window is larger than the padded input")
    return pool


def parse_layer_or_pool(text: str) -> Layer | Pool:
    """The layer that a line says; it pools where its second part begins with a word, as in "max 3x3".

    Raises:
      ValueError: with the part of the line that is wrong, and what it should be.
    """
    second = text.partition(",")[2].strip()
    return parse_pool(text) if second[:1].isalpha() else parse_layer(text)


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


def _input(text: str) -> tuple[int, ...]:
    shape = sizes(text, "the input", at_least=3)
    if len(shape) > 5:
        raise ValueError(f"the input {text!r} should have 1 to 3 spatial dimensions, not {len(shape) - 2}")
    return shape


def _window(text: str, axes: int, name: str) -> tuple[int, ...]:
    taps = sizes(text, name)
    if len(taps) != axes:
        raise ValueError(
            f"{name} {text!r} should have {axes} sizes, one for each spatial dimension of the input"
        )
    return taps


def _options(parts: list[str], known: tuple[str, ...], form: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition(" ")
        name, value = name.lower(), value.strip()
        if name not in known:
            raise ValueError(f"{part!r} is not known; {form}")
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


def _steps_text(
    stride: tuple[int, ...], pad: tuple[tuple[int, int], ...], dilation: tuple[int, ...]
) -> list[str]:
    """The steps that are not those of a layer that doesn't say them."""
    parts = []
    if any(s != 1 for s in stride):
        parts.append(f"stride {_one_or_each(stride)}")
    if any(pair != (0, 0) for pair in pad):
        pairs = [str(lo) if lo == hi else f"{lo}:{hi}" for lo, hi in pad]
        parts.append(f"pad {_one_or_each(pairs)}")
    if any(d != 1 for d in dilation):
        parts.append(f"dilation {_one_or_each(dilation)}")
    return parts


def _by(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _one_or_each(entries: tuple[int, ...] | list[str]) -> str:
    """One entry where all are the same."""
    return "x".join(map(str, entries[:1] if len(set(entries)) == 1 else entries))
