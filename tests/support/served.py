"""Asks a CUDA kernel whether it supports a problem: it refuses an unsupported one before any launch."""

import numpy as np


def serves(module, kernel, op, case, dtype, tf32=False):
    """Whether the kernel of this name supports the op ("fprop", "dgrad" or "wgrad") of a convolution case."""
    x_order, _, y_order = case.to_canonical
    axes = [
        (a.input, a.taps, a.output, a.stride, a.pad_lo, a.input_dilation, a.filter_dilation)
        for a in case.axes
    ]
    try:
        module.conv_workspace_bytes(
            op=op,
            kernel=kernel,
            dtype=np.dtype(dtype).name,
            batch=case.x[x_order[0]],
            in_channels=case.x[x_order[-1]],
            out_channels=case.y[y_order[-1]],
            groups=case.groups,
            axes=axes,
            below_highest=tf32,
        )
    except ValueError as refused:
        # Other errors of the binding mean that this function called it wrongly.
        if f'the kernel "{kernel}"' not in str(refused):
            raise
        return False
    return True
