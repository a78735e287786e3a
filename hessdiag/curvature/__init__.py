"""What multiplies by the Hessian."""

from hessdiag.curvature.dense import DenseOperator, dense_hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import SymmetricOperator

__all__ = ["DenseOperator", "HessianOperator", "SymmetricOperator", "dense_hessian"]
