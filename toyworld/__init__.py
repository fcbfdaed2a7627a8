"""The embedded default: a synthetic world of real mp4 files and questions, and tiny models that were trained on it."""

from pathlib import Path

CLIP = Path(__file__).parent / "weights" / "clip"
"""The scorer, an open_clip model ("local-dir:" + this folder)."""

POLICY = Path(__file__).parent / "weights" / "policy"
"""The policy, a transformers folder."""
