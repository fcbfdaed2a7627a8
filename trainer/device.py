"""Where to compute. PyTorch is imported only once a device is really asked for."""

from pipeline.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def check_device(name: str) -> str:
    """The name itself. Raises UserError: it is none of DEVICES."""
    if name not in DEVICES:
        raise UserError(
            f"device {name!r}", "expected auto, cpu or cuda", "leave it out to take a GPU when there is one"
        )
    return name


def resolve_device(name: str) -> str:
    """cpu or cuda, for "auto", "cpu" or "cuda".

    Raises:
        UserError: another name, or cuda where there is none.
    """
    import torch

    check_device(name)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda", "PyTorch sees no GPU here", "use cpu, or install a PyTorch build for your GPU")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
