"""Each loss as a sum over units and a count of units, so that batches add up exactly.

A unit is whatever the loss averages over: an example, a valid token, a class-weighted example. For a
batch B the pair ``(total, count)`` is ``(sum_{u in B} w_u loss_u, sum_{u in B} w_u)``; the loss of the whole
data is sum of totals over sum of counts, whichever way the data are split. Totals are float64 scalars that
carry the graph; unit losses are computed in at least float32.
"""

from hessdiag.losses.classes import CausalLM, CrossEntropy, NegativeLogLikelihood
from hessdiag.losses.elements import BCEWithLogits, MeanSquaredError
from hessdiag.losses.named import LOSSES, as_loss, convex_form
from hessdiag.losses.own import FunctionLoss, ModelLoss
from hessdiag.losses.roots import ConvexLoss, OutputRoot
from hessdiag.losses.totals import Loss

__all__ = [
    "LOSSES",
    "BCEWithLogits",
    "CausalLM",
    "ConvexLoss",
    "CrossEntropy",
    "FunctionLoss",
    "Loss",
    "MeanSquaredError",
    "ModelLoss",
    "NegativeLogLikelihood",
    "OutputRoot",
    "as_loss",
    "convex_form",
]
