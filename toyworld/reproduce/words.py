"""How the programs of the evidence read their words."""

import argparse


def parser(module: str, purpose: str | None) -> argparse.ArgumentParser:
    """Of a module that `python -m` runs; its docstring is its help, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=purpose,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
