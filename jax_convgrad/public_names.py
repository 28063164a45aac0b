"""The modules of the public names; ``__init__.py`` imports this module when the first of them is used.

A name is imported ``as`` itself, so that type checkers treat it as exported.
"""

from jax_convgrad.instruments.comparison_report import LaxComparison as LaxComparison
from jax_convgrad.instruments.explain import explain as explain
from jax_convgrad.instruments.explanation import Explanation as Explanation
from jax_convgrad.instruments.flow import gradient_flow as gradient_flow
from jax_convgrad.instruments.flow_report import FlowReport as FlowReport
from jax_convgrad.instruments.gradient_check import check_gradients as check_gradients
from jax_convgrad.instruments.gradient_report import GradientReport as GradientReport
from jax_convgrad.instruments.lax_comparison import compare_with_lax as compare_with_lax
from jax_convgrad.instruments.verdict import GradientError as GradientError
from jax_convgrad.layers.convolution import conv as conv
from jax_convgrad.layers.convolution import conv_general_dilated as conv_general_dilated
from jax_convgrad.layers.gradient_functions import conv_bias_grad as conv_bias_grad
from jax_convgrad.layers.gradient_functions import conv_filter_grad as conv_filter_grad
from jax_convgrad.layers.gradient_functions import conv_input_grad as conv_input_grad
from jax_convgrad.layers.normalization import BatchStatistics as BatchStatistics
from jax_convgrad.layers.normalization import batch_norm as batch_norm
from jax_convgrad.layers.pooling import avg_pool as avg_pool
from jax_convgrad.layers.pooling import max_pool as max_pool
from jax_convgrad.layers.transposed import conv_transpose as conv_transpose
from jax_convgrad.layers.unpooling import max_unpool as max_unpool
from jax_convgrad.primitives import tool_rules as _tool_rules  # noqa: F401  # its import registers the rules
from jax_convgrad.primitives.binding import forward_mode as forward_mode
from jax_convgrad.primitives.checkpoint_policy import dots_saveable as dots_saveable
from jax_convgrad.primitives.targets import export_checks as export_checks
from jax_convgrad.replace.installation import install as install
from jax_convgrad.replace.installation import uninstall as uninstall
from jax_convgrad.replace.lowering_record import InstalledReport as InstalledReport
from jax_convgrad.replace.lowering_record import installed_report as installed_report
from jax_convgrad.replace.replacement import replace_convolutions as replace_convolutions
