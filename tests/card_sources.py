"""What the code of an adapter says of itself: the columns that it reads and makes, and its reasons to reject."""

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType

from pipeline.sources import Source

ROOT = Path(__file__).resolve().parent.parent


ADAPTERS = {f"pipeline.sources.{file.stem}" for file in (ROOT / "pipeline" / "sources").glob("*.py")} - {
    f"pipeline.sources.{name}" for name in ("__init__", "draft", "files", "source", "values")
}


def modules(source: Source) -> list[ModuleType]:
    """An adapter's module, and those of the adapters that it takes parts from."""
    own = inspect.getmodule(source.draft)
    assert own is not None
    used = [found for part in vars(own).values() if inspect.isroutine(part) and (found := inspect.getmodule(part))]
    return [own, *(module for module in used if module is not own and module.__name__ in ADAPTERS)]


def literals(source: Source) -> set[str]:
    """All string literals of an adapter, and the texts in its tuples."""
    found: set[str] = set()
    for module in modules(source):
        nodes = ast.walk(ast.parse(inspect.getsource(module)))
        found |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        found |= {text for value in vars(module).values() if isinstance(value, tuple) for text in value}
    return {text for text in found if isinstance(text, str)}


def asked_for(source: Source) -> set[str]:
    """The columns that an adapter's draft asks a row for by name: row.get("column")."""
    tree = ast.parse(inspect.getsource(source.draft))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "row.get"]
    names = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
    return {name for name in names if isinstance(name, str)}


def made(source: Source) -> set[str]:
    """The columns that an adapter's own rows have where the file holds no rows: keys of the objects that it builds."""
    nodes = [node for module in modules(source) for node in ast.walk(ast.parse(inspect.getsource(module)))]
    keys = [key for node in nodes if isinstance(node, ast.Dict) for key in node.keys]
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def reasons(module: ModuleType) -> set[str]:
    """The reasons for which a module rejects rows."""
    return set(re.findall(r'Rejected\(\s*"([^"]+)"', inspect.getsource(module)))
