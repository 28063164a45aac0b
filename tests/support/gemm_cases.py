"""Problems for CUDA's multistage matrix products, including the suite's dense layer."""

from conv_cases import NDHWC, NHWC, NWC
from conv_cases import ConvCase as C

# Channels are whole chunks of every dtype (8), unless stated otherwise; slices, tiles and phases have tails.
CASES = [
    C("tails of slices and columns", (2, 7, 9, 40), (3, 3, 40, 72), 1, "SAME", order=NHWC),
    C("tails of both tiles", (3, 8, 8, 16), (1, 1, 16, 136), 1, "VALID", order=NHWC),
    C("wgrad's large tile", (1, 5, 9, 128), (1, 1, 128, 128), 1, "VALID", order=NHWC),
    C("phases of a stride", (2, 9, 8, 16), (3, 3, 16, 24), 2, ((1, 1), (0, 1)), order=NHWC),
    C("phases without a tap", (1, 9, 11, 8), (1, 2, 8, 16), 3, "VALID", order=NHWC),
    C("dilated filter", (1, 9, 9, 8), (3, 2, 8, 16), 1, ((2, 2), (0, 3)), 1, (2, 3), order=NHWC),
    C("both dilations", (1, 5, 6, 8), (3, 3, 8, 8), (2, 3), ((4, 2), (3, 5)), (3, 2), (2, 3), order=NHWC),
    C("cropped", (2, 7, 6, 8), (3, 3, 8, 8), 1, ((-1, 1), (2, -2)), order=NHWC),
    C("groups", (2, 5, 6, 48), (3, 3, 16, 24), 1, "SAME", groups=3, order=NHWC),
    C("one axis", (3, 50, 16), (5, 16, 8), 2, ((3, 4),), order=NWC),
    C("three axes", (1, 4, 5, 6, 8), (2, 3, 3, 8, 16), (2, 1, 2), "SAME", order=NDHWC),
    C("images smaller than a slice", (20, 2, 1, 8), (1, 1, 8, 8), 1, "VALID", order=NHWC),
    C("channels in odd numbers", (2, 7, 6, 9), (3, 3, 9, 7), 2, "SAME", order=NHWC),
    C("one channel", (1, 9, 9, 1), (5, 5, 1, 66), 1, ((2, 2), (2, 2)), order=NHWC),
    C("odd groups", (1, 6, 6, 15), (3, 3, 5, 6), 1, "SAME", groups=3, order=NHWC),
]

DENSE = C("dense", (2, 8, 8, 64), (3, 3, 64, 128), 1, "SAME", order=NHWC)
