"""LoRA: nothing but small matrices learns, the policy below stays, and a checkpoint opens wherever its base is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from pipeline.errors import UserError
from tests import tiny_policy
from trainer import adapters
from trainer.identity import ADAPTER_FILE, policy_fingerprint
from trainer.packing import Packed, Row, Segment, pack
from trainer.policy import Policy, load_policy

RANK = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy.save(tmp_path_factory.mktemp("base") / "policy")


def adapted(base: Path, seed: int = 0) -> Policy:
    """A policy with adapters that have learned something."""
    policy = load_policy(base)
    torch.manual_seed(seed)
    adapters.add(policy, RANK)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return policy


def a_batch(policy: Policy) -> tuple[Packed, list[torch.Tensor]]:
    [prompt] = policy.prompts([tiny_policy.view(2)], [tiny_policy.QUESTION])
    responses = tiny_policy.some_responses(0, 5, 7)
    return pack([Row(prompt, [Segment(r) for r in responses])], policy.family.pad_id), responses


def logprobs(policy: Policy) -> torch.Tensor:
    packed, _ = a_batch(policy)
    prompts = policy.prompts([tiny_policy.view(2)], [tiny_policy.QUESTION])
    with torch.no_grad():
        return policy.logprobs(packed, policy.encode(prompts), 1.0)


def test_adapters_start_as_nothing(base: Path) -> None:
    policy = load_policy(base)
    adapters.add(policy, RANK)
    assert torch.equal(logprobs(policy), logprobs(load_policy(base)))


def test_only_the_language_model_s_linear_layers_are_adapted(base: Path) -> None:
    policy = load_policy(base)
    layers, _ = adapters.linear_layers(policy)
    adapters.add(policy, RANK)
    learning = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert len(learning) == 2 * len(layers) > 0
    assert all("lora_" in name and ".language_model." in name for name in learning)
    assert not any("visual" in name or "lm_head" in name for name in learning)


def test_a_vision_tower_that_learns_is_adapted_too(base: Path) -> None:
    policy = load_policy(base)
    adapters.add(policy, RANK, vision=True)
    learning = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert any("visual" in name for name in learning)
    assert all("lora_" in name for name in learning)


def test_switched_off_they_leave_the_base_to_the_bit(base: Path) -> None:
    policy, plain = adapted(base), logprobs(load_policy(base))
    changed = logprobs(policy)
    assert (changed - plain).abs().max() > 0.1
    with adapters.disabled(policy.model):
        assert torch.equal(logprobs(policy), plain)
    assert torch.equal(logprobs(policy), changed)


def test_what_is_saved_comes_back_to_the_bit_and_transformers_opens_it(base: Path, tmp_path: Path) -> None:
    policy = adapted(base)
    adapters.save(policy, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = load_policy(tmp_path / "adapter")
    assert torch.equal(logprobs(again), logprobs(policy))
    assert [n for n, p in again.model.named_parameters() if p.requires_grad] == [
        n for n, p in policy.model.named_parameters() if p.requires_grad
    ]
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "adapter")
    assert any("lora_" in name for name, _ in stock.named_parameters())


def test_equal_adapters_are_equal_files_and_their_policies_have_one_fingerprint(base: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        adapters.save(adapted(base), tmp_path / name)
    adapters.save(adapted(base, seed=1), tmp_path / "c")
    a, b, c = (load_policy(tmp_path / name).fingerprint for name in "abc")
    assert a == b != c
    assert a == policy_fingerprint(tmp_path / "b")
    assert a != load_policy(base).fingerprint
    content = json.loads((tmp_path / "a" / ADAPTER_FILE).read_text())
    assert content["target_modules"] == sorted(content["target_modules"])
    assert Path(content["base_model_name_or_path"]).is_absolute()


def test_merged_it_stands_alone(base: Path, tmp_path: Path) -> None:
    policy = adapted(base)
    adapters.save(policy, tmp_path / "adapter")
    adapters.merge(tmp_path / "adapter", tmp_path / "merged")
    merged = load_policy(tmp_path / "merged")
    assert not any("lora_" in name for name, _ in merged.model.named_parameters())
    assert (logprobs(merged) - logprobs(policy)).abs().max() < 1e-4
    with pytest.raises(UserError, match="holds something already"):
        adapters.merge(tmp_path / "adapter", tmp_path / "merged")
    with pytest.raises(UserError, match="nothing to merge"):
        adapters.merge(base, tmp_path / "other")


def test_an_adapter_that_does_not_fit_is_a_clear_error(base: Path, tmp_path: Path) -> None:
    adapters.save(adapted(base), tmp_path / "adapter")
    with pytest.raises(UserError, match=r"stands alone.*strive-train merge"):
        adapters.learner(str(tmp_path / "adapter"), None, 0, "cpu", vision=False)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="does not fit the policy"):
        load_policy(tmp_path / "adapter")
    (tmp_path / "adapter" / ADAPTER_FILE).write_text('{"peft_type": "LORA"}')
    with pytest.raises(UserError, match="names no base policy"):
        load_policy(tmp_path / "adapter")
    for torn in ('{"base_model_name_', "[]"):
        (tmp_path / "adapter" / ADAPTER_FILE).write_text(torn)
        with pytest.raises(UserError, match="is not a JSON object"):
            policy_fingerprint(tmp_path / "adapter")


def test_a_policy_is_known_by_its_files_without_pytorch(base: Path, tmp_path: Path) -> None:
    """The command line of `select` names the policy, an adapter too, before any worker loads it."""
    adapters.save(adapted(base), tmp_path / "adapter")
    code = (
        "import sys, cli.data; from trainer.identity import policy_fingerprint as known\n"
        "print(known(sys.argv[1]), sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "adapter")]
    told = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent).stdout
    assert told == f"{load_policy(tmp_path / 'adapter').fingerprint} []\n"
