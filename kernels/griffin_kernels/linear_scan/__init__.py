"""The diagonal linear recurrence `h_t = a_t * h_{t-1} + x_t`, real and complex."""

from griffin_kernels.linear_scan.api import linear_scan as linear_scan
from griffin_kernels.linear_scan.implementations import IMPLEMENTATIONS as IMPLEMENTATIONS
from griffin_kernels.linear_scan.planar import Planar as Planar
from griffin_kernels.linear_scan.sharded import sharded_linear_scan as sharded_linear_scan
