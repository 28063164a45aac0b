"""Invalid arguments raise an error, also at trace time, and the message names the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_convgrad as jc

X = np.ones((2, 4, 6, 7), np.float32)  # NCHW for conv_general_dilated
W = np.ones((6, 4, 3, 3), np.float32)
XL = np.ones((2, 6, 7, 4), np.float32)  # NHWC for the others
WL = np.ones((3, 3, 4, 6), np.float32)
DY = np.ones((2, 4, 5, 6), np.float32)
B = np.ones(6, np.float32)


def general(window_strides=(1, 1), padding="VALID", **rest):
    return lambda x, w: jc.conv_general_dilated(x, w, window_strides, padding, **rest)


def transpose(strides=(2, 2), padding="SAME", **rest):
    return lambda x, w: jc.conv_transpose(x, w, strides, padding, **rest)


def layer(**rest):
    return lambda *arrays: jc.conv(*arrays, **rest)


def input_grad(input_shape=XL.shape, **rest):
    return lambda dy, w: jc.conv_input_grad(dy, w, input_shape, **rest)


def filter_grad(filter_shape=WL.shape, **rest):
    return lambda x, dy: jc.conv_filter_grad(x, dy, filter_shape, **rest)


def max_pool(*arguments, **rest):
    return lambda x: jc.max_pool(x, *arguments, **rest)


def avg_pool(*arguments, **rest):
    return lambda x: jc.avg_pool(x, *arguments, **rest)


KIND = (TypeError, ValueError)  # lax itself raises either if a sequence has the wrong type

TABLE = [
    # conv_general_dilated: ranks, channels, groups
    ("general_rank", general(), (X, W[0]), KIND, "rhs"),
    ("general_no_space_for_batch", general((), "VALID"), (B, B), KIND, "lhs"),
    ("general_four_axes", general((1,) * 3), (np.ones((1,) * 6, np.float32),) * 2, ValueError,
     "window_strides"),
    ("general_channels", general(), (X, W[:, :3]), ValueError, "rhs"),
    ("general_no_taps", general(), (X, W[..., :0]), ValueError, "rhs"),
    ("groups_divide_input", general(feature_group_count=3), (X, W[:, :1]), ValueError, "feature_group_count"),
    ("groups_divide_output", general(feature_group_count=4),
     (X, W[:, :1]), ValueError, "feature_group_count"),
    ("groups_zero", general(feature_group_count=0), (X, W), ValueError, "feature_group_count"),
    ("groups_negative", general(feature_group_count=-1), (X, W), ValueError, "feature_group_count"),
    ("batch_groups_zero", general(batch_group_count=0), (X, W), ValueError, "batch_group_count"),
    ("batch_groups_divide_batch", general(batch_group_count=3), (X, W), ValueError, "batch_group_count"),
    ("batch_groups_divide_output", general(batch_group_count=2), (X, W[:5]), ValueError, "batch_group_count"),
    ("both_groups", general(batch_group_count=2, feature_group_count=2),
     (X, W[:, :2]), ValueError, "batch_group_count"),
    # strides and dilations
    ("strides_short", general((1,)), (X, W), ValueError, "window_strides"),
    ("strides_long", general((1, 1, 1)), (X, W), ValueError, "window_strides"),
    ("strides_zero", general((0, 1)), (X, W), ValueError, "window_strides"),
    ("strides_negative", general((1, -1)), (X, W), ValueError, "window_strides"),
    ("strides_fraction", general((1, 1.5)), (X, W), TypeError, "window_strides"),
    ("lhs_dilation_short", general(padding=((0, 0),) * 2, lhs_dilation=(2,)),
     (X, W), ValueError, "lhs_dilation"),
    ("lhs_dilation_zero", general(padding=((0, 0),) * 2, lhs_dilation=(0, 1)),
     (X, W), ValueError, "lhs_dilation"),
    ("rhs_dilation_long", general(rhs_dilation=(1, 1, 1)), (X, W), ValueError, "rhs_dilation"),
    ("rhs_dilation_negative", general(rhs_dilation=(1, -2)), (X, W), ValueError, "rhs_dilation"),
    # padding
    ("padding_word", general(padding="FULL"), (X, W), ValueError, "padding"),
    ("padding_one_pair", general(padding=((1, 1),)), (X, W), ValueError, "padding"),
    ("padding_flat", general(padding=(1, 1)), (X, W), KIND, "padding"),
    ("padding_triples", general(padding=((1, 1, 1), (1, 1, 1))), (X, W), ValueError, "padding"),
    ("padding_none", general(padding=None), (X, W), KIND, "padding"),
    ("padding_crops_all", general(padding=((-4, -3), (0, 0))), (X, W[..., :1, :1]), ValueError, "padding"),
    ("padding_word_input_dilated", general(padding="SAME", lhs_dilation=(2, 2)),
     (X, W), ValueError, "padding"),
    # dtypes
    ("preferred_narrower", general(preferred_element_type="bfloat16"),
     (X, W), TypeError, "preferred_element_type"),
    ("preferred_integer", general(preferred_element_type="int32"),
     (X, W), TypeError, "preferred_element_type"),
    ("preferred_complex", general(preferred_element_type="complex64"),
     (X, W), TypeError, "preferred_element_type"),
    ("preferred_real", general(preferred_element_type="float64"),
     (X.astype("complex64"), W.astype("complex64")), TypeError, "preferred_element_type"),
    ("integers_with_float", general(), (X.astype(np.int32), W), TypeError, "rhs"),
    ("integers_strides", general((0, 1)), (X.astype(np.int32), W.astype(np.int32)),
     ValueError, "window_strides"),
    ("complex_with_real", general(), (X.astype(np.complex64), W), TypeError, "rhs"),
    ("precision_word", general(precision="HIGHER"), (X, W), ValueError, "precision"),
    ("precision_number", general(precision=1), (X, W), ValueError, "precision"),
    ("precision_mixed_pair", general(precision=(lax.Precision.HIGH, "high")),
     (X, W), ValueError, "precision"),
    ("precision_triple", general(precision=("high",) * 3), (X, W), ValueError, "precision"),
    ("mixed", general(), (X, W.astype(jnp.bfloat16)), TypeError, "rhs"),
    ("no_array", lambda x: jc.conv_general_dilated(x, "w", (1, 1), "VALID"), (X,), TypeError, "rhs"),
    # dimension_numbers
    ("order_unknown", general(dimension_numbers=("NCHW", "OIHX", "NCHW")), (X, W), KIND, "dimension_numbers"),
    ("order_short", general(dimension_numbers=("NCH", "OIH", "NCH")), (X, W), KIND, "dimension_numbers"),
    ("order_twice", general(dimension_numbers=("NCHH", "OIHW", "NCHW")), (X, W), KIND, "dimension_numbers"),
    ("order_two", general(dimension_numbers=("NCHW", "OIHW")), (X, W), KIND, "dimension_numbers"),
    ("order_no_batch", general(dimension_numbers=("ACHW", "OIHW", "NCHW")),
     (X, W), KIND, "dimension_numbers"),
    # conv_transpose
    ("transpose_channels", transpose(), (XL, WL[:, :, :3]), ValueError, "rhs"),
    ("transpose_strides", transpose((2,)), (XL, WL), ValueError, "strides"),
    ("transpose_stride_zero", transpose((0, 1)), (XL, WL), ValueError, "strides"),
    ("transpose_padding", transpose(padding="FULL"), (XL, WL), ValueError, "padding"),
    ("transpose_dilation", transpose(rhs_dilation=(0, 1)), (XL, WL), ValueError, "rhs_dilation"),
    # the layer
    ("layer_rank", layer(), (XL, WL[0]), KIND, "w"),
    ("layer_channels", layer(), (XL, WL[:, :, :3]), ValueError, "w"),
    ("layer_stride", layer(stride=0), (XL, WL), ValueError, "stride"),
    ("layer_stride_long", layer(stride=(1, 1, 1)), (XL, WL), ValueError, "stride"),
    ("layer_dilation", layer(dilation=(1, 0)), (XL, WL), ValueError, "dilation"),
    ("layer_padding", layer(padding="FULL"), (XL, WL), ValueError, "padding"),
    ("layer_groups", layer(groups=3), (XL, WL), ValueError, "groups"),
    ("layer_groups_zero", layer(groups=0), (XL, WL), ValueError, "groups"),
    ("layer_bias_size", layer(), (XL, WL, B[:5]), ValueError, "b"),
    ("layer_bias_rank", layer(), (XL, WL, B[None]), ValueError, "b"),
    ("layer_bias_dtype", layer(), (XL, WL, B.astype(jnp.bfloat16)), TypeError, "b"),
    ("layer_mixed", layer(), (XL.astype(jnp.bfloat16), WL), TypeError, "w"),
    ("layer_activation_word", layer(activation="rleu"), (XL, WL), ValueError, "activation"),
    ("layer_relu_of_complex", layer(activation="relu"), (XL.astype("complex64"), WL.astype("complex64")),
     TypeError, "activation"),
    ("layer_activation_kind", layer(activation=3), (XL, WL), KIND, "activation"),
    ("layer_order", layer(dimension_numbers=("NHWX", "HWIO", "NHWC")), (XL, WL), KIND, "dimension_numbers"),
    # the gradient functions
    ("input_grad_dy_positions", input_grad(), (DY[:, :3], WL), ValueError, "dy"),
    ("input_grad_dy_batch", input_grad(), (DY[:1], WL), ValueError, "dy"),
    ("input_grad_dy_channels", input_grad(), (DY[..., :5], WL), ValueError, "dy"),
    ("input_grad_shape_rank", input_grad((2, 6, 7)), (DY, WL), ValueError, "input_shape"),
    ("input_grad_shape_channels", input_grad((2, 6, 7, 5)), (DY, WL), ValueError, "w"),
    ("input_grad_integers", input_grad(), (DY.astype(np.int32), WL.astype(np.int32)), TypeError, "dy"),
    ("input_grad_mixed", input_grad(), (DY, WL.astype(np.float64)), TypeError, "w"),
    ("input_grad_stride", input_grad(stride=-1), (DY, WL), ValueError, "stride"),
    ("input_grad_dilation", input_grad(padding=((0, 0),) * 2, input_dilation=0),
     (DY, WL), ValueError, "input_dilation"),
    ("filter_grad_dy_positions", filter_grad(), (XL, DY[:, :, :3]), ValueError, "dy"),
    ("filter_grad_dy_batch", filter_grad(), (XL, DY[:1]), ValueError, "dy"),
    ("filter_grad_dy_channels", filter_grad(), (XL, DY[..., :5]), ValueError, "dy"),
    ("filter_grad_shape_rank", filter_grad((3, 4, 6)), (XL, DY), ValueError, "filter_shape"),
    ("filter_grad_shape_channels", filter_grad((3, 3, 5, 6)), (XL, DY), ValueError, "filter_shape"),
    ("filter_grad_mixed", filter_grad(), (XL, DY.astype(np.float64)), TypeError, "dy"),
    ("bias_grad_integers", jc.conv_bias_grad, (DY.astype(np.int32),), TypeError, "dy"),
    # pooling
    ("max_pool_window_long", max_pool((2, 2, 2, 2)), (XL,), ValueError, "window_shape"),
    ("max_pool_complex", max_pool((2, 2)), (XL.astype("complex64"),), TypeError, "inputs"),
    ("max_pool_dilation_zero", max_pool((2, 2), window_dilation=(0, 1)),
     (XL,), ValueError, "window_dilation"),
    ("avg_pool_dilation_short", avg_pool((2, 2), window_dilation=(2,)), (XL,), ValueError, "window_dilation"),
    ("max_pool_window_past_rank", max_pool((2, 2, 2)), (XL[0, 0],), ValueError, "window_shape"),
    ("max_pool_window_empty", max_pool(()), (XL,), ValueError, "window_shape"),
    ("max_pool_window_zero", max_pool((0, 2)), (XL,), ValueError, "window_shape"),
    ("max_pool_window_number", max_pool(2), (XL,), TypeError, "window_shape"),
    ("max_pool_window_huge", max_pool((2**16, 2**16)), (XL,), ValueError, "window_shape"),
    ("max_pool_strides_short", max_pool((2, 2), (2,)), (XL,), ValueError, "strides"),
    ("max_pool_strides_zero", max_pool((2, 2), (2, 0)), (XL,), ValueError, "strides"),
    ("max_pool_padding_word", max_pool((2, 2), padding="FULL"), (XL,), ValueError, "padding"),
    ("max_pool_padding_short", max_pool((2, 2), padding=((0, 0),)), (XL,), ValueError, "padding"),
    ("max_pool_complex", max_pool((2, 2)), (XL.astype(np.complex64),), TypeError, "inputs"),
    ("avg_pool_bool", avg_pool((2, 2)), (XL.astype(np.bool_),), TypeError, "inputs"),
    ("avg_pool_window_zero", avg_pool((2, 0)), (XL,), ValueError, "window_shape"),
    ("avg_pool_strides_negative", avg_pool((2, 2), (-1, 1)), (XL,), ValueError, "strides"),
    ("avg_pool_padding_triples", avg_pool((2, 2), padding=((0, 0, 0),) * 2), (XL,), ValueError, "padding"),
]  # fmt: skip


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "call, arrays, error, name", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_raises(call, arrays, error, name, traced):
    with pytest.raises(error, match=rf"(?<![\w]){name}(?![\w])"):
        if traced:
            jax.jit(call).trace(*arrays)
        else:
            call(*arrays)


def test_the_arrays_of_the_table_do_fit():
    """Each call is valid without the row's change, so the change causes the error above."""
    assert general()(X, W).shape == (2, 6, 4, 5)
    assert transpose()(XL, WL).shape == (2, 12, 14, 6)
    assert layer()(XL, WL, B).shape == DY.shape
    assert input_grad()(DY, WL).shape == XL.shape
    assert filter_grad()(XL, DY).shape == WL.shape
    assert max_pool((2, 2))(XL).shape == avg_pool((2, 2))(XL).shape == (2, 5, 6, 4)


@pytest.mark.parametrize("w", [(6, 4, 7, 3), (6, 4, 3, 9), (6, 4, 20, 20)], ids=str)
def test_filter_past_the_padded_input(w):
    """If there is no room for the filter, lax gives an empty result and zero gradients, not an error."""
    w = np.ones(w, np.float32)
    y, vjp = jax.vjp(lambda x, w: jc.conv_general_dilated(x, w, (2, 1), "VALID"), X, w)
    assert y.size == 0
    assert y.shape == lax.conv_general_dilated(X, w, (2, 1), "VALID").shape
    for gradient, array in zip(vjp(jnp.zeros_like(y)), (X, w), strict=True):
        np.testing.assert_array_equal(gradient, np.zeros(array.shape))


def test_window_past_the_padded_input():
    for pool in (jc.max_pool, jc.avg_pool):
        assert pool(XL, (7, 2)).shape == (2, 0, 6, 4)
        assert pool(XL, (20, 20), (3, 3), ((1, 1), (1, 1))).shape == (2, 0, 0, 4)
