"""Products of float32 matrices on the CPU, by oneDNN where nothing is learned.

torch leaves them to MKL, which on AMD processors uses half the width of their vectors: 64 rows
times 512 x 8,192 take 8.1 ms, by oneDNN 3.5 ms. In bfloat16 torch itself turns to oneDNN.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Not in every build of torch.
_packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_ONEDNN = None if _packet is None else _packet.default
# The call itself costs what a million multiplications do.
_WORTHWHILE = 2**20


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: (..., K) times (N, K)."""
    if not _by_onednn(inputs, weight):
        return F.linear(inputs, weight, bias)
    return _ONEDNN(inputs, weight, bias, "none", [], "")


def _by_onednn(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can do it, without gradients and unseen by exporters, and is quicker."""
    return (
        _ONEDNN is not None
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and inputs.is_cpu
        and inputs.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and inputs.numel() * len(weight) >= _WORTHWHILE
    )


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)
