"""Matrix products on a CPU by oneDNN, which PyTorch carries but gives only convolutions and half precision.

The BLAS that `matmul` calls (MKL) runs AVX2 on processors that are not Intel's; oneDNN writes its kernels for what the
processor has, and is faster there in the same arithmetic: float32, summed in float32. A kernel is made once for
a shape and kept, which takes a third of a millisecond; that is why small products stay where they are. Few rows meet a
large weight while decoding, again and again in the same few shapes.

Legend of shapes: m rows, n columns of the result, k summed.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORTH, WIDE = 2**23, 2**18
"""Multiplications, or elements of the weight, from which a product goes to oneDNN."""


@cache
def available() -> bool:
    """Whether this processor has AVX-512 and this build of PyTorch the kernels: the same answer for a whole run."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether x [.., k] times weight [n, k] goes to oneDNN: by device, type and size, never by a measurement."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and (x.numel() * len(weight) >= WORTH or weight.numel() >= WIDE)
        and not torch.is_autocast_enabled("cpu")
        and available()
    )


def times(a: Tensor, b: Tensor) -> Tensor:
    """a [m, k] and b [n, k] -> a @ b^T [m, n], without a graph."""
    if a.dtype == torch.float32 and available():
        return _onednn(a, b, None)
    return a @ b.t()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    """x [.., k], weight [n, k], bias [n] or None -> [.., n]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        flat = gradient.reshape(-1, len(weight))
        wanted = ctx.needs_input_grad
        return (
            _onednn(flat, weight.t(), None).view(x.shape) if wanted[0] else None,
            _onednn(flat.t(), x.reshape(-1, x.shape[-1]).t(), None) if wanted[1] else None,
            flat.sum(0) if wanted[2] else None,
        )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [.., k], weight [n, k], bias [n] -> x @ weight^T + bias [.., n]."""
    if suits(x, weight):
        out: Tensor = _Linear.apply(x, weight, bias)
        return out
    return F.linear(x, weight, bias)


def through(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's output; of a plain linear layer by `linear`, of any other (an adapter's) by its own forward."""
    if type(layer) is nn.Linear:
        return linear(x, layer.weight, layer.bias)
    out: Tensor = layer(x)
    return out
