"""The rules of the house, read from the source: who may import whom, who owns a library, how long a file may be."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cli", "toyworld", "trainer", "pipeline")

# One way only: cli -> toyworld -> trainer -> pipeline, and nothing but cli imports toyworld.
MAY_IMPORT = {
    "cli": {"cli", "toyworld", "trainer", "pipeline"},
    "toyworld": {"toyworld", "trainer", "pipeline"},
    "trainer": {"trainer", "pipeline"},
    "pipeline": {"pipeline"},
}

LANCE = {"lance"}
LANCE_OWNERS = "pipeline/store/"  # only files in this folder

RAY = {"ray"}
RAY_OWNERS = "pipeline/cluster/"  # only files in this folder, and only within functions: it is an extra

VECTOR_SEARCH = {"faiss"}
VECTOR_SEARCH_OWNERS = {"pipeline/search/index.py", "pipeline/search/clusters.py"}

DECODERS = {"decord", "av", "torchcodec", "cv2", "imageio", "moviepy"}
DECODER_OWNERS = "pipeline/decode/"  # only files in this folder
ENCODERS = {"av"}  # the toy world writes its clips with PyAV; it never reads one back

FAMILY_PREFIXES = ("Qwen", "qwen", "SmolVLM", "smolvlm", "InternVL", "LlavaNext", "LlavaOnevision", "Gemma")
FAMILY_OWNERS = "trainer/families/"  # only files in this folder
FAMILY_MAKERS = {"toyworld/policy.py", "toyworld/tokenizer.py"}  # they build the toy policy, which is of some family

LONG, TOO_LONG = 300, 400


def sources() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports anywhere in it, in functions too, and by a literal `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield str(node.module)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield str(first.value)


def at_import(tree: ast.Module) -> list[ast.stmt]:
    """The statements of a module that are executed when it is imported, but for what they contain."""
    return [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def roots(tree: ast.AST) -> set[str]:
    return {name.split(".")[0] for name in imported(tree)}


def family_names(tree: ast.AST) -> set[str]:
    """Identifiers, imported names and string literals (docstrings aside) that name a model family."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            words = [node.id]
        elif isinstance(node, ast.Attribute):
            words = [node.attr]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            words = [*module.split("."), *(part for alias in node.names for part in alias.name.split("."))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            words = [node.value]
        else:
            continue
        found.update(word for word in words if word.startswith(FAMILY_PREFIXES))
    return found


def opens_for_reading(tree: ast.AST) -> list[int]:
    """Lines that call `av.open` without the literal mode "w"."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open":
            modes = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            if not any(isinstance(mode, ast.Constant) and mode.value == "w" for mode in modes):
                lines.append(node.lineno)
    return lines


def swallowed(tree: ast.AST) -> list[int]:
    """Lines of handlers that catch everything and do nothing: `except Exception: pass` and its like."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(c is None or (isinstance(c, ast.Name) and c.id in ("Exception", "BaseException")) for c in caught)
        empty = all(
            isinstance(s, ast.Pass | ast.Continue) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            for s in node.body
        )
        if broad and empty:
            lines.append(node.lineno)
    return lines


def test_every_package_has_sources() -> None:
    found = {file.relative_to(ROOT).parts[0] for file in sources() if file.name != "__init__.py"}
    assert found == set(PACKAGES)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{name_of(file)} imports {root}"
        for file in sources()
        for root in sorted(roots(tree_of(file)) & set(PACKAGES))
        if root not in MAY_IMPORT[file.relative_to(ROOT).parts[0]]
    ]
    assert not wrong, wrong


def test_one_module_imports_lance() -> None:
    owners = {name_of(file) for file in sources() if roots(tree_of(file)) & LANCE}
    assert owners
    assert not {name for name in owners if not name.startswith(LANCE_OWNERS)}


def test_one_package_imports_ray_and_only_when_asked() -> None:
    owners = [file for file in sources() if roots(tree_of(file)) & RAY]
    assert owners
    assert not [name_of(file) for file in owners if not name_of(file).startswith(RAY_OWNERS)]
    assert not [name_of(file) for file in owners if roots(ast.Module(at_import(tree_of(file)), [])) & RAY]


def test_one_package_imports_faiss() -> None:
    assert {name_of(file) for file in sources() if roots(tree_of(file)) & VECTOR_SEARCH} == VECTOR_SEARCH_OWNERS


def test_one_module_imports_a_video_decoder() -> None:
    readers = set()
    for file in sources():
        used = roots(tree_of(file)) & DECODERS
        if file.relative_to(ROOT).parts[0] == "toyworld":
            reading = opens_for_reading(tree_of(file))
            assert not reading, f"{name_of(file)} opens a video other than for writing, lines {reading}"
            used -= ENCODERS
        if used:
            readers.add(name_of(file))
    assert readers
    assert not {name for name in readers if not name.startswith(DECODER_OWNERS)}


def test_one_package_knows_model_families_by_name() -> None:
    knowing = {name_of(file) for file in sources() if family_names(tree_of(file))}
    owners = {name for name in knowing if name.startswith(FAMILY_OWNERS)}
    assert knowing <= owners | FAMILY_MAKERS
    assert owners


def test_no_handler_swallows_everything() -> None:
    found = [f"{name_of(file)}:{line}" for file in sources() for line in swallowed(tree_of(file))]
    assert not found, found


def test_no_file_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    files = [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    long = {name: length for name, length in lengths.items() if length > LONG}
    if long:
        with capsys.disabled():
            print("\nlong files:", ", ".join(f"{name} ({length})" for name, length in sorted(long.items())))
    assert not {name: length for name, length in long.items() if length > TOO_LONG}


def test_every_imported_library_is_declared() -> None:
    """An import of something that only another library happens to bring along breaks on its next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [names for extra, names in project["optional-dependencies"].items() if extra != "dev"]
    listed = [*project["dependencies"], *(name for names in extras for name in names)]
    declared = {d.split(">")[0].split("[")[0].strip().lower().replace("-", "_") for d in listed}
    module_of = {
        "pylance": "lance",
        "pillow": "pil",
        "open_clip_torch": "open_clip",
        "pyyaml": "yaml",
        "faiss_cpu": "faiss",
    }
    modules = {module_of.get(name, name) for name in declared}
    standard = set(__import__("sys").stdlib_module_names)
    foreign = {
        f"{name_of(file)} imports {root}"
        for file in sources()
        for root in roots(tree_of(file)) - standard - set(PACKAGES)
        if root.lower() not in modules
    }
    assert not foreign, sorted(foreign)


def test_the_rules_catch_what_they_forbid() -> None:
    tree = ast.parse(
        "def f():\n"
        "    import lance.file\n"
        "    import_module('trainer.policy')\n"
        "    try:\n        f()\n    except (ValueError, Exception):\n        pass\n"
        "    return Qwen3VLForConditionalGeneration, 'qwen3_vl'\n"
    )
    assert roots(tree) == {"lance", "trainer"}
    assert at_import(tree) == []
    assert swallowed(tree) == [6]
    assert opens_for_reading(ast.parse('av.open(a, "w")\nav.open(b, mode="w")\nav.open(c)\nav.open(d, mode="r")')) == [
        3,
        4,
    ]
    assert family_names(tree) == {"Qwen3VLForConditionalGeneration", "qwen3_vl"}
