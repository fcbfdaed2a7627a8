"""The other side of benchmarks/step.py: TRL's GRPOTrainer on the same model and prompts, frames given as images."""

import os
import random
import time
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.step_models import SIZES, build
from benchmarks.step_sides import LR, RESPONSES, TOKENS
from benchmarks.step_world import build_processor, cases, conversation


def trl(size: str, length: int, frozen: bool, steps: int, device: str = "cpu") -> dict[str, Any]:
    """Steps of TRL's trainer, timed from its own callbacks. On a GPU weights are bfloat16, as on our side."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRL_EXPERIMENTAL_SILENCE="1")
    import transformers
    from datasets import Dataset  # type: ignore[import-untyped]
    from PIL import Image
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

    transformers.logging.set_verbosity_error()
    processor = build_processor(SIZES[size].vocabulary)
    cpu = device == "cpu"
    dtype = torch.float32 if cpu else torch.bfloat16
    model = build(SIZES[size], processor.tokenizer.convert_tokens_to_ids, device=device, dtype=dtype)
    model.model.visual.requires_grad_(not frozen)
    widths: set[int] = set()
    plain = model.model.language_model.forward

    def seen(*args: Any, **inputs: Any) -> Any:
        widths.add(inputs["inputs_embeds"].shape[1])
        return plain(*args, **inputs)

    model.model.language_model.forward = seen
    rows = []
    for case in cases(processor, length, steps):
        images = [Image.fromarray(f) for f in case.view.frames]
        messages = conversation(list(case.view.times), case.question)
        rows.append({"prompt": messages, "images": images})
    ticks: list[tuple[float, float]] = []

    def tick() -> None:
        if not cpu:
            torch.cuda.synchronize()
        ticks.append((time.perf_counter(), time.process_time()))

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **inputs: Any) -> None:
            tick()

        def on_step_end(self, *args: Any, **inputs: Any) -> None:
            tick()

    chance = random.Random(0)
    with TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=RESPONSES,
            num_generations=RESPONSES,
            max_completion_length=TOKENS,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            beta=0.0,
            learning_rate=LR,
            optim="adamw_torch",
            temperature=1.0,
            generation_kwargs={"min_new_tokens": TOKENS, "top_k": 0},
            max_steps=steps,
            use_cpu=cpu,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
            shuffle_dataset=False,
        )
        run = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [chance.random() for _ in completions],
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            callbacks=[Watch()],
        )
        run.train()
    pairs = list(zip(ticks[::2], ticks[1::2], strict=True))
    return {
        "steps": [round(b[0] - a[0], 3) for a, b in pairs],
        "processor": [round(b[1] - a[1], 3) for a, b in pairs],
        "prompt": max(widths) - TOKENS,
        "trl": version("trl"),
    }
