"""Models by somebody who means harm: no pickle of theirs is opened and no code of theirs is run, whatever they ask for.

Each test shows by its own hand that the trap works when it is stepped on.
"""

import ast
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from transformers import AutoConfig

from pipeline.errors import UserError
from pipeline.scorer import Scorer, resolve
from tests import tiny_policy
from tests.curation_world import a_scorer
from tests.test_house import ROOT, name_of, sources, tree_of
from tests.test_scorer import a_siglip
from trainer import checkpoint
from trainer.policy import load_policy


class Trap:
    """Whoever unpickles it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def trap(file: Path, mark: Path) -> Path:
    torch.save({"state_dict": Trap(mark)}, file)
    torch.load(file, weights_only=False)
    mark.unlink()
    return file


def code(folder: Path, mark: Path) -> None:
    """A module that a model's folder brings along; importing it creates a file."""
    (folder / "planted.py").write_text(
        f"open({str(mark)!r}, 'w')\n"
        "from transformers import PretrainedConfig, PreTrainedTokenizerFast\n"
        "class Config(PretrainedConfig):\n    model_type = 'qwen3_vl'\n"
        "class Words(PreTrainedTokenizerFast):\n    pass\n"
    )


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_checkpoints_state_is_read_without_unpickling(tmp_path: Path) -> None:
    file, mark = tmp_path / checkpoint.STATE_FILE, tmp_path / "mark"
    file.parent.mkdir()
    trap(file, mark)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(tmp_path)
    assert not mark.exists()


def test_a_scorers_pickle_is_not_opened(tmp_path: Path) -> None:
    folder, mark = a_scorer(tmp_path / "clip"), tmp_path / "mark"
    whole = folder / "open_clip_model.safetensors"
    whole.rename(folder / "model.safetensors")
    trap(folder / "open_clip_pytorch_model.bin", mark)  # open_clip prefers it to the other name
    with pytest.raises(UserError, match="cannot load"):
        Scorer(resolve(str(folder)), "cpu", "fp32")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"\.safetensors"):
        resolve(str(folder))
    assert not mark.exists()


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies the code of models before it runs it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.usefixtures("modules")
def test_a_scorers_code_is_not_run_even_when_its_settings_say_so(tmp_path: Path) -> None:
    folder, mark = a_siglip(tmp_path / "siglip"), tmp_path / "mark"
    code(folder, mark)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["trust_remote_code"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "planted.Words"]}, tokenizer_class="Words")
    open_clip.get_tokenizer(f"local-dir:{folder}")
    mark.unlink()
    with contextlib.suppress(UserError):  # whether it does without is the tokenizer's own affair
        Scorer(resolve(str(folder)), "cpu", "fp32")
    assert not mark.exists()


@pytest.mark.usefixtures("modules")
def test_a_policys_code_is_not_run(tmp_path: Path) -> None:
    folder, mark = tiny_policy.save(tmp_path / "policy"), tmp_path / "mark"
    code(folder, mark)
    edit(folder / "config.json", auto_map={"AutoConfig": "planted.Config"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "planted.Words"]})
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    mark.unlink()
    load_policy(folder)
    assert not mark.exists()


def test_a_policys_pickle_is_not_opened(tmp_path: Path) -> None:
    folder, mark = tiny_policy.save(tmp_path / "policy"), tmp_path / "mark"
    (folder / "model.safetensors").unlink()
    trap(folder / "pytorch_model.bin", mark)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_policy(folder)
    assert not mark.exists()


def test_an_adapters_pickle_is_not_opened(tmp_path: Path) -> None:
    base, mark = tiny_policy.save(tmp_path / "policy"), tmp_path / "mark"
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "peft_type": "LORA"}))
    trap(folder / "adapter_model.bin", mark)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors"):
        load_policy(folder)
    assert not mark.exists()
    shutil.rmtree(base)


WANTED = {"from_pretrained": "trust_remote_code=False", "load": "weights_only=True"}


def careless(tree: ast.AST) -> list[int]:
    """Lines that load a model or a tensor file without saying that nothing in it is run."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            given = {ast.unparse(keyword) for keyword in node.keywords}
            ours = name == "from_pretrained" or ast.unparse(node.func) == "torch.load"
            if ours and WANTED[name] not in {text.replace(" ", "") for text in given}:
                lines.append(node.lineno)
    return lines


def test_nothing_is_loaded_carelessly() -> None:
    assert careless(ast.parse("torch.load(a)\nX.from_pretrained(b)\ntorch.load(c, weights_only=True)")) == [1, 2]
    files = [*sources(), *(ROOT / "benchmarks").rglob("*.py")]
    found = [f"{name_of(file)}:{line}" for file in files for line in careless(tree_of(file))]
    assert not found, found
