"""The convolution problems of the suite, in the user's order of dimensions, small enough for the emulator."""

import zlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import reference
from reference import Axis

NWC = ("NWC", "WIO", "NWC")
NHWC = ("NHWC", "HWIO", "NHWC")
NDHWC = ("NDHWC", "DHWIO", "NDHWC")
_DEFAULT = "NC", "OI", "NC"  # the meaning of None in lax: spatial axes last


@dataclass(frozen=True)
class ConvCase:
    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...] | int = 1
    padding: str | tuple[tuple[int, int], ...] = "VALID"
    input_dilation: tuple[int, ...] | int = 1
    filter_dilation: tuple[int, ...] | int = 1
    groups: int = 1
    batch_groups: int = 1
    order: tuple[str, str, str] | None = None  # dimension_numbers

    @property
    def rank(self) -> int:
        return len(self.x) - 2

    def _per_axis(self, value) -> tuple[int, ...]:
        return (value,) * self.rank if isinstance(value, int) else value

    @property
    def lax_arguments(self) -> dict:
        """The arguments after lhs and rhs in lax.conv_general_dilated."""
        return {
            "window_strides": self._per_axis(self.stride),
            "padding": self.padding,
            "lhs_dilation": self._per_axis(self.input_dilation),
            "rhs_dilation": self._per_axis(self.filter_dilation),
            "dimension_numbers": self.order,
            "feature_group_count": self.groups,
            "batch_group_count": self.batch_groups,
        }

    @property
    def grad_arguments(self) -> dict:
        """The arguments after the arrays in conv_input_grad and conv_filter_grad (None is channels-last)."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "input_dilation": self.input_dilation,
            "dilation": self.filter_dilation,
            "groups": self.groups,
            "dimension_numbers": self.specs,
        }

    @property
    def specs(self) -> tuple[str, str, str]:
        return self.order or tuple(s + "DHW"[-self.rank :] for s in _DEFAULT)

    @cached_property
    def to_canonical(self):
        """Three permutations: x to [N, spatial..., C], w to [spatial..., C, K], y to [N, spatial..., K]."""
        lhs, rhs, out = self.specs
        spatial = [s for s in rhs if s not in "IO"]
        return (
            [lhs.index(s) for s in ("N", *spatial, "C")],
            [rhs.index(s) for s in (*spatial, "I", "O")],
            [out.index(s) for s in ("N", *spatial, "C")],
        )

    @cached_property
    def axes(self) -> list[Axis]:
        x_order, w_order, _ = self.to_canonical
        inputs = [self.x[d] for d in x_order[1:-1]]
        taps = [self.w[d] for d in w_order[:-2]]
        stride, dilation = self._per_axis(self.stride), self._per_axis(self.filter_dilation)
        pads = reference.padding_pairs(self.padding, inputs, taps, stride, dilation)
        input_dilation = self._per_axis(self.input_dilation)
        columns = zip(inputs, taps, stride, pads, input_dilation, dilation, strict=True)
        return [Axis(i, r, s, lo, hi, di, dr) for i, r, s, (lo, hi), di, dr in columns]

    @cached_property
    def y(self) -> tuple[int, ...]:
        x_order, w_order, y_order = self.to_canonical
        batch, features = self.x[x_order[0]] // self.batch_groups, self.w[w_order[-1]]
        canonical = (batch, *(axis.output for axis in self.axes), features)
        return tuple(canonical[y_order.index(d)] for d in range(self.rank + 2))

    @property
    def sum_lengths(self) -> dict[str, int]:
        """The largest number of products in each sum."""
        _, w_order, y_order = self.to_canonical
        taps = int(np.prod([axis.taps for axis in self.axes]))
        group_in, features = (self.w[d] for d in w_order[-2:])
        positions = int(np.prod([axis.output for axis in self.axes]))
        return {
            "y": taps * group_in,
            "dx": taps * features // (self.groups * self.batch_groups),
            "dw": self.y[y_order[0]] * positions,
        }

    @property
    def has_small_groups(self) -> bool:
        """Whether CUDA's kernel "grouped" supports the case; test_cuda_grouped.py asks the kernel itself."""
        _, w_order, _ = self.to_canonical
        groups = self.groups * self.batch_groups
        group_in, features = (self.w[d] for d in w_order[-2:])
        return groups > 1 and max(group_in, features // groups) <= 16

    def widened(self, factor: int) -> "ConvCase":
        """The same case with ``factor`` times as many input and output channels."""
        x_order, w_order, _ = self.to_canonical
        x, w = list(self.x), list(self.w)
        for shape, dimension in ((x, x_order[-1]), (w, w_order[-2]), (w, w_order[-1])):
            shape[dimension] *= factor
        return replace(self, name=f"{self.name} x{factor}", x=tuple(x), w=tuple(w))

    @property
    def has_few_channels(self) -> bool:
        """Whether CUDA's kernel "few_channels" supports it; test_few_channels.py asks the kernel itself."""
        _, w_order, _ = self.to_canonical
        dense = self.groups * self.batch_groups == 1
        return dense and 1 <= self.w[w_order[-2]] <= 4 and all(a.input_dilation == 1 for a in self.axes)

    @property
    def multiply_adds(self) -> int:
        return int(np.prod(self.y)) * self.sum_lengths["y"]

    def arrays(self, dtype):
        """The arrays x, w and dy of this case: always the same numbers, rounded to dtype."""
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        return tuple(random.standard_normal(shape).astype(dtype) for shape in (self.x, self.w, self.y))

    def reference(self, x, w, dy, reduce_abs=False):
        """The results y, dx, dw in float64 or longdouble; with reduce_abs sums over absolute values."""
        canonical = []
        for array, order in zip((x, w, dy), self.to_canonical, strict=True):
            array = reference.wide(array).transpose(order)
            canonical.append(np.abs(array) if reduce_abs else array)
        x, w, dy = canonical
        # A batch group is a separate convolution, from its part of the batch to its part of the features.
        ys, dxs, dws = [], [], []
        parts = (np.split(x, self.batch_groups), *(np.split(a, self.batch_groups, -1) for a in (w, dy)))
        for x_g, w_g, dy_g in zip(*parts, strict=True):
            ys.append(reference.fprop(x_g, w_g, self.axes, self.groups))
            dxs.append(reference.dgrad(dy_g, w_g, self.axes, self.groups))
            dws.append(reference.wgrad(x_g, dy_g, self.axes, self.groups))
        results = np.concatenate(dxs), np.concatenate(dws, -1), np.concatenate(ys, -1)
        dx, dw, y = (a.transpose(np.argsort(p)) for a, p in zip(results, self.to_canonical, strict=True))
        return {"y": y, "dx": dx, "dw": dw}


def _cases():
    C = ConvCase
    yield from (
        # One axis.
        C("1d", (2, 3, 9), (4, 3, 3)),
        C("1d_stride3_channels_last", (2, 17, 3), (5, 3, 4), 3, "SAME", order=NWC),
        C("1d_causal_dilated", (2, 4, 13), (6, 4, 3), 1, ((4, 0),), filter_dilation=2),
        C("1d_both_dilations", (1, 3, 6), (2, 3, 4), 2, ((3, 2),), 3, 2),
        C("1d_depthwise", (2, 11, 7), (3, 1, 7), 2, "SAME_LOWER", groups=7, order=NWC),
        # Two axes: strides and paddings.
        C("2d", (2, 3, 6, 7), (4, 3, 3, 3)),
        C("2d_channels_last", (2, 6, 7, 3), (3, 3, 3, 4), order=NHWC),
        C("2d_same", (1, 8, 7, 5), (3, 3, 5, 6), 1, "SAME", order=NHWC),
        C("2d_same_even_filter", (1, 7, 6, 3), (4, 2, 3, 5), 1, "SAME", order=NHWC),
        C("2d_same_lower_even_filter", (1, 7, 6, 3), (4, 2, 3, 5), 1, "SAME_LOWER", order=NHWC),
        C("2d_stride2_same", (2, 9, 8, 3), (3, 3, 3, 5), 2, "SAME", order=NHWC),
        C("2d_stride2_same_lower", (2, 9, 8, 3), (3, 3, 3, 5), 2, "SAME_LOWER", order=NHWC),
        C("2d_stride_per_axis", (1, 11, 10, 4), (3, 5, 4, 3), (3, 2), "VALID", order=NHWC),
        C("2d_stride_skips_inputs", (2, 3, 9, 9), (4, 3, 2, 2), 3),
        C("2d_asymmetric_padding", (1, 5, 6, 3), (3, 2, 3, 4), 1, ((0, 2), (3, 1)), order=NHWC),
        C("2d_padding_past_filter", (1, 3, 4, 2), (2, 3, 2, 3), 2, ((4, 5), (3, 6)), order=NHWC),
        C("2d_negative_padding", (1, 8, 9, 2), (3, 3, 2, 3), 1, ((-1, 0), (1, -2)), order=NHWC),
        C("2d_filter_past_input", (2, 3, 2, 4), (5, 4, 4, 3), 1, ((2, 2), (1, 2)), order=NHWC),
        C("2d_one_output", (3, 4, 5, 2), (4, 5, 2, 6), order=NHWC),
        # Dilations.
        C("2d_filter_dilation", (1, 9, 10, 3), (3, 3, 3, 4), 1, "SAME", 1, (2, 3), order=NHWC),
        C("2d_filter_dilation_stride", (2, 11, 9, 2), (3, 2, 2, 3), (2, 3), "VALID", 1, 2, order=NHWC),
        C("2d_input_dilation", (1, 4, 5, 3), (3, 3, 3, 4), 1, ((1, 1), (2, 0)), (2, 3), order=NHWC),
        C("2d_input_dilation_stride", (2, 4, 5, 3), (3, 2, 3, 2), (3, 2), ((2, 1), (0, 3)), 2, 1, 1, 1, NHWC),
        C("2d_both_dilations", (1, 5, 4, 2), (3, 2, 2, 3), (2, 3), ((3, 2), (1, 4)), (3, 2), (2, 3), 1,
          1, NHWC),
        # Groups.
        C("2d_groups", (2, 5, 6, 6), (3, 3, 2, 9), 1, "SAME", groups=3, order=NHWC),
        C("2d_groups_first_order", (1, 4, 6, 5), (6, 2, 3, 3), 2, "SAME", groups=2),
        C("2d_depthwise", (2, 7, 6, 17), (3, 3, 1, 17), 1, "SAME", groups=17, order=NHWC),
        C("2d_depthwise_stride", (1, 8, 9, 5), (3, 5, 1, 5), (2, 3), "SAME", groups=5, order=NHWC),
        C("2d_depthwise_twice", (1, 6, 7, 5), (3, 3, 1, 10), 1, "VALID", groups=5, order=NHWC),
        C("2d_groups_to_one", (2, 5, 5, 12), (3, 3, 4, 3), 1, "SAME", groups=3, order=NHWC),
        C("2d_batch_groups", (4, 5, 6, 3), (3, 3, 3, 6), 2, "SAME", batch_groups=2, order=NHWC),
        C("2d_batch_groups_first_order", (6, 2, 5, 5), (3, 2, 3, 3), 1, ((1, 0), (0, 2)), batch_groups=3),
        # Orders of dimensions.
        C("2d_nhwc_oihw_nchw", (2, 5, 6, 3), (4, 3, 3, 3), 1, "SAME", order=("NHWC", "OIHW", "NCHW")),
        C("2d_permuted", (3, 7, 2, 6), (3, 5, 2, 3), (2, 1), "SAME", 1, (1, 2), 1, 1, ("CWNH", "HOWI",
          "WNCH")),
        C("2d_named_nchw", (1, 3, 6, 5), (4, 3, 2, 3), (1, 2), order=("NCHW", "OIHW", "NCHW")),
        # Three axes.
        C("3d", (1, 2, 4, 5, 6), (3, 2, 2, 3, 2)),
        C("3d_same_stride", (2, 5, 4, 6, 3), (3, 2, 3, 3, 4), (2, 1, 3), "SAME", 1, 1, 1, 1, NDHWC),
        C("3d_all", (1, 3, 4, 3, 4), (2, 2, 3, 2, 6), (2, 1, 2), ((1, 2), (2, 0), (3, 3)), (1, 2, 3),
          (2, 1, 2), 2, 1,
          NDHWC),
        C("3d_permuted", (4, 2, 3, 5, 1), (2, 3, 2, 2, 3), 1, "SAME", order=("DCHWN", "WODIH", "HNWCD")),
        # Channels that do not fill a vector, filters of one tap.
        C("2d_one_channel_each", (2, 6, 7, 1), (3, 3, 1, 1), 1, "SAME", order=NHWC),
        C("2d_1x1", (2, 4, 5, 33), (1, 1, 33, 17), order=NHWC),
        C("2d_1x1_stride", (2, 5, 5, 5), (1, 1, 5, 3), 2, order=NHWC),
        C("2d_33_to_5", (1, 5, 4, 33), (3, 3, 33, 5), 1, "SAME", order=NHWC),
        C("2d_3_to_67", (1, 5, 6, 3), (3, 3, 3, 67), 1, "SAME", order=NHWC),
        # Larger than a 64 x 64 x 16 tile of the matrix products: 70 positions, 67 channels.
        C("2d_past_tile_out", (2, 5, 7, 17), (1, 1, 17, 67), order=NHWC),
        C("2d_past_tile_in", (2, 5, 7, 67), (1, 1, 67, 17), order=NHWC),
        C("2d_past_tile_channels", (1, 4, 5, 67), (1, 1, 67, 67), order=NHWC),
        C("2d_past_tile_taps", (1, 9, 8, 9), (3, 3, 9, 21), 1, "SAME", order=NHWC),
        C("2d_past_tile_groups", (1, 6, 12, 34), (1, 1, 17, 68), groups=2, order=NHWC),
    )  # fmt: skip


CASES = tuple(_cases())
BY_NAME = {case.name: case for case in CASES}

# A subset that still has every rank, a stride, both dilations, groups, every order and more than one tile.
FEW = tuple(
    BY_NAME[name]
    for name in (
        "1d_both_dilations",
        "1d_depthwise",
        "2d",
        "2d_same_even_filter",
        "2d_stride2_same",
        "2d_padding_past_filter",
        "2d_negative_padding",
        "2d_both_dilations",
        "2d_groups",
        "2d_depthwise",
        "2d_batch_groups",
        "2d_permuted",
        "2d_33_to_5",
        "2d_past_tile_out",
        "2d_past_tile_taps",
        "3d_all",
    )
)

# Few channels, and taps only along the last axis.
PLANAR = (
    ConvCase("planar_3_to_5", (2, 7, 41, 3), (1, 1, 3, 5), 1, "VALID", order=NHWC),
    ConvCase("planar_padded", (2, 3, 70, 4), (1, 1, 4, 1), (2, 1), ((1, 0), (5, -2)), order=NHWC),
    ConvCase("planar_groups", (1, 90, 6), (1, 3, 8), 1, ((0, 3),), groups=2, order=NWC),
    ConvCase("planar_taps", (2, 5, 300, 3), (1, 5, 3, 2), 1, ((0, 0), (3, 9)), order=NHWC),
    ConvCase("planar_taps_dilated", (1, 600, 4), (3, 1, 8), 1, ((70, 5),), 1, 64, groups=4, order=NWC),
    ConvCase("planar_channels_first", (2, 8, 100), (2, 8, 1), 1, "VALID"),
)

# Groups smaller and larger than a vector, channel counts with tails, and every step that an axis has.
GROUPS = (
    ConvCase("lanes_3_3", (2, 6, 19, 21), (3, 3, 3, 21), 1, "SAME", groups=7, order=NHWC),
    ConvCase("lanes_5_5", (1, 5, 33, 35), (2, 3, 5, 35), 1, ((1, 0), (1, 1)), groups=7, order=NHWC),
    ConvCase("lanes_7_7", (2, 9, 8, 21), (3, 3, 7, 21), 2, "SAME", groups=3, order=NHWC),
    ConvCase("lanes_4_4", (1, 6, 7, 48), (3, 3, 4, 48), 1, "SAME", groups=12, order=NHWC),
    ConvCase("lanes_2_2", (1, 7, 5, 34), (3, 3, 2, 34), (1, 2), "SAME", 1, (2, 1), groups=17, order=NHWC),
    ConvCase("lanes_8_8", (1, 4, 5, 24), (3, 1, 8, 24), 1, "SAME", groups=3, order=NHWC),
    ConvCase("lanes_1_2", (2, 5, 6, 19), (3, 3, 1, 38), 1, "SAME", groups=19, order=NHWC),
    ConvCase("lanes_1_3", (1, 8, 9, 11), (3, 3, 1, 33), 2, "SAME", groups=11, order=NHWC),
    ConvCase("lanes_2_1", (1, 6, 7, 38), (3, 3, 2, 19), 1, "SAME", groups=19, order=NHWC),
    ConvCase("lanes_3_1", (2, 7, 6, 33), (3, 2, 3, 11), (2, 1), "VALID", groups=11, order=NHWC),
    ConvCase("lanes_4_6", (1, 5, 5, 12), (3, 3, 4, 18), 1, "SAME", groups=3, order=NHWC),
    ConvCase("depthwise_whole", (2, 9, 31, 32), (3, 3, 1, 32), 1, "SAME", groups=32, order=NHWC),
    ConvCase("depthwise_7x7", (2, 7, 7, 48), (7, 7, 1, 48), 1, "SAME", groups=48, order=NHWC),
    ConvCase("depthwise_s2", (1, 13, 12, 33), (3, 3, 1, 33), 2, "SAME", groups=33, order=NHWC),
    ConvCase("depthwise_s3_d2", (1, 19, 17, 16), (3, 3, 1, 16), 3, "SAME", 1, 2, groups=16, order=NHWC),
    ConvCase("depthwise_up", (1, 5, 6, 20), (4, 4, 1, 20), 1, ((2, 2), (2, 2)), 2, groups=20, order=NHWC),
    ConvCase("depthwise_all_steps", (2, 6, 5, 17), (3, 4, 1, 17), (3, 2), ((2, 3), (4, 1)), (2, 3), (2, 1),
             groups=17, order=NHWC),
    ConvCase("depthwise_cropped", (1, 9, 40, 18), (3, 3, 1, 18), 1, ((-1, 2), (-3, -4)), groups=18,
             order=NHWC),
    ConvCase("depthwise_far_padding", (1, 3, 4, 16), (3, 3, 1, 16), 2, ((5, 4), (7, 6)), groups=16,
             order=NHWC),
    ConvCase("depthwise_1x1", (2, 3, 5, 37), (1, 1, 1, 37), groups=37, order=NHWC),
    ConvCase("depthwise_1d", (2, 150, 20), (5, 1, 20), 1, "SAME", groups=20, order=NWC),
    ConvCase("depthwise_1d_dilated", (1, 90, 16), (3, 1, 16), 1, ((16, 0),), 1, 8, groups=16, order=NWC),
    ConvCase("groups_1d_long", (1, 40, 12), (150, 4, 12), 1, ((75, 74),), groups=3, order=NWC),
    ConvCase("groups_column", (2, 40, 1, 12), (3, 1, 3, 12), 1, "SAME", groups=4, order=NHWC),
    ConvCase("groups_3d", (1, 4, 5, 6, 6), (3, 2, 3, 3, 6), (1, 2, 1), "SAME", groups=2, order=NDHWC),
    ConvCase("depthwise_3d", (1, 3, 4, 9, 19), (2, 3, 3, 1, 19), 1, "SAME", groups=19, order=NDHWC),
    # Vectors of depthwise channels, in windows of 3, 5 and 7 taps at strides 1 and 2, forward and backward.
    ConvCase("depthwise_3x3_s2", (2, 9, 19, 12), (3, 3, 1, 12), 2, "SAME", groups=12, order=NHWC),
    ConvCase("depthwise_5x5", (1, 6, 18, 8), (5, 5, 1, 8), 1, ((2, 2), (1, 3)), groups=8, order=NHWC),
    ConvCase("depthwise_5x5_s2", (1, 11, 21, 8), (5, 5, 1, 8), 2, "SAME", groups=8, order=NHWC),
    ConvCase("depthwise_7x7_s2", (1, 9, 20, 4), (7, 7, 1, 4), 2, ((3, 3), (2, 4)), groups=4, order=NHWC),
    ConvCase("depthwise_3x3_up", (1, 4, 11, 8), (3, 3, 1, 8), 1, ((1, 1), (2, 1)), 2, groups=8, order=NHWC),
    ConvCase("depthwise_5x5_up", (2, 3, 5, 8), (5, 5, 1, 8), 1, ((4, 3), (3, 2)), 2, groups=8, order=NHWC),
    ConvCase("depthwise_7x7_up", (1, 3, 9, 4), (7, 7, 1, 4), 1, ((5, 6), (5, 4)), 2, groups=4, order=NHWC),
    ConvCase("depthwise_s3", (1, 10, 29, 8), (4, 3, 1, 8), 3, ((1, 2), (2, 0)), groups=8, order=NHWC),
    ConvCase("depthwise_crop_vectors", (1, 9, 30, 8), (3, 3, 1, 8), (1, 2), ((-2, 1), (-3, -5)), groups=8,
             order=NHWC),
    ConvCase("depthwise_column", (2, 40, 1, 8), (3, 1, 1, 8), 1, "SAME", groups=8, order=NHWC),
    ConvCase("depthwise_3d_vectors", (1, 4, 5, 11, 8), (3, 3, 3, 1, 8), (1, 2, 2), "SAME", groups=8,
             order=NDHWC),
    # Groups of one vector each, and the largest groups.
    ConvCase("groups_4_4_s2", (1, 7, 21, 12), (3, 3, 4, 12), 2, "SAME", 1, (1, 2), groups=3, order=NHWC),
    ConvCase("groups_8_8_s3", (2, 7, 11, 16), (3, 2, 8, 16), (2, 3), "SAME", groups=2, order=NHWC),
    ConvCase("groups_16_16", (1, 3, 5, 32), (2, 3, 16, 32), 1, "SAME", groups=2, order=NHWC),
)  # fmt: skip


def has_outputs(case):
    return 0 not in case.y
