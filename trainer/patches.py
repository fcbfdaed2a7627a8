"""Patch embedding as the matrix product that it is: vision towers spell it as a convolution, which is slower."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv2d | nn.Conv3d


def product(conv: Convolution, x: Tensor) -> Tensor:
    """A convolution over inputs as large as its kernel: [N, C, *kernel] -> [N, out, 1..]; others as they are."""
    if x.shape[2:] != conv.kernel_size:
        return type(conv).forward(conv, x)  # type: ignore[arg-type]
    out = F.linear(x.flatten(1), conv.weight.flatten(1), conv.bias)
    return out.view(*out.shape, *([1] * len(conv.kernel_size)))


@contextmanager
def patches_as_products(tower: nn.Module) -> Iterator[None]:
    """Within it a tower's convolutions whose windows do not overlap run as products where they see one patch each."""
    found = [
        m
        for m in tower.modules()
        if isinstance(m, Convolution) and m.kernel_size == m.stride and not any(m.padding) and m.groups == 1
    ]
    for conv in found:
        conv.forward = partial(product, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in found:
            del conv.forward
