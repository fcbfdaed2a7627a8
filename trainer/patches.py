"""A vision tower's products as the fast ones that they can be: its patch embedding is spelt as a convolution."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from trainer.products import linear, through

Convolution = nn.Conv2d | nn.Conv3d


def product(conv: Convolution, x: Tensor) -> Tensor:
    """A convolution over inputs as large as its kernel: [N, C, *kernel] -> [N, out, 1..]; others as they are."""
    if x.shape[2:] != conv.kernel_size:
        return type(conv).forward(conv, x)  # type: ignore[arg-type]
    out = linear(x.flatten(1), conv.weight.flatten(1), conv.bias)
    return out.view(*out.shape, *([1] * len(conv.kernel_size)))


@contextmanager
def as_products(tower: nn.Module) -> Iterator[None]:
    """Within it a tower's convolutions whose windows do not overlap run as products where they see one patch each.

    Where no gradient is taken, its linear layers run by `products.linear`; checkpointed blocks run again outside.
    """
    found: list[nn.Module] = []
    for m in tower.modules():
        if isinstance(m, Convolution) and m.kernel_size == m.stride and not any(m.padding) and m.groups == 1:
            m.forward = partial(product, m)  # type: ignore[method-assign]
            found.append(m)
        elif type(m) is nn.Linear and not torch.is_grad_enabled():
            m.forward = partial(through, m)  # type: ignore[method-assign]
            found.append(m)
    try:
        yield
    finally:
        for m in found:
            del m.forward
