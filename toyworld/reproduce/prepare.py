"""What runs of the evidence begin with: policies, stores and curated datasets, made by the commands of a real user."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipeline.errors import UserError
from pipeline.store import Store
from toyworld.reproduce.datasets import derive, draw
from toyworld.reproduce.plan import (
    MIN_VAR,
    MIXED_STORE,
    POOL,
    SELECTED,
    SHIFTED_POOL,
    STORE,
    WEIGHTED,
    WRONG_STORE,
    Scale,
)
from toyworld.reproduce.work import Prepared, Workplace, side_by_side

STORES = (STORE, WRONG_STORE, MIXED_STORE)
_SHIFTS = ("--sampler", "uniform", "--no-spatial")


def prepare(place: Workplace, scale: Scale) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Policies and clips, then the selections of all stores; what was done before is not repeated.

    Returns:
        What the selection of each of STORES told, and all commands as `Prepared.done` has them.
    """
    starts, clips = Prepared(place, "starts"), Prepared(place, "clips")
    side_by_side(place, [partial(make_starts, starts, scale), partial(make_views, clips, scale)])
    chosen = {name: Prepared(place, name, after=(starts, clips)) for name in STORES}
    makers = {STORE: choose, WRONG_STORE: choose_wrong, MIXED_STORE: choose_mixed}
    told: dict[str, dict[str, Any]] = {name: {} for name in STORES}  # in this order, whichever is ready first

    def job(name: str) -> None:
        told[name] = makers[name](chosen[name], scale)

    side_by_side(place, [partial(job, name) for name in STORES])
    return told, [each for one in (starts, clips, *chosen.values()) for each in one.done]


def make_starts(prepared: Prepared, scale: Scale) -> None:
    """The policies that runs start from."""
    place, noise = prepared.place, ("--noise", str(scale.noise))
    kind = ("--taught", str(scale.taught)) if scale.taught else noise
    prepared.once("python", "-m", "toyworld.reproduce.start", str(place.start), *kind)
    prepared.once("python", "-m", "toyworld.reproduce.start", str(place.noisy_start), *noise)


def make_views(prepared: Prepared, scale: Scale) -> None:
    """All stores with frames, scores and views; STORE with phase shifts as views, and the held-out clips."""
    place, world = prepared.place, prepared.place.out / STORE / "toyworld"
    clips = ("--split", "train", "--clips", str(scale.clips))
    do = partial(_strive_data, prepared)
    do(STORE, "ingest", *clips)
    do(STORE, "ingest", "--split", "test", "--clips", str(scale.test_clips))
    for store, how in ((WRONG_STORE, (str(scale.wrong),)), (MIXED_STORE, (str(scale.mixed_up), "--mixed-up"))):
        wrong = place.out / "annotations" / store
        prepared.once("python", "-m", "toyworld.reproduce.annotations", str(world), str(wrong), "--wrong", *how)
        for file in ("train.json", "train_grounding.jsonl"):
            do(store, "ingest", str(wrong / file), "--videos", str(world), "--split", "train")
    for store in STORES:
        do(store, "cache-frames", "--fps", "4")
        do(store, "score-frames")
        do(store, "build-variants", *(_SHIFTS if store == STORE else ()))


def choose(prepared: Prepared, scale: Scale) -> dict[str, Any]:
    """All datasets of STORE; returns what the selection told."""
    place = prepared.place
    do, answers = partial(_strive_data, prepared, STORE), _answers(place, scale)
    # A store holds the views of one sampler at a time; a curated dataset keeps those that it was made with.
    do("select", "--name", SHIFTED_POOL, "--keep-all", *answers, "--draws", "2")
    do("build-variants")
    selection = _select(do, answers, scale)
    do("select", "--name", WEIGHTED, "--mode", "weight", *answers, *_on_views(scale))
    derive(Store(place.out / STORE), max(scale.seeds, scale.beyond_seeds))
    return selection


def choose_mixed(prepared: Prepared, scale: Scale) -> dict[str, Any]:
    """The datasets of MIXED_STORE; returns what the selection told."""
    selection = _select(partial(_strive_data, prepared, MIXED_STORE), _answers(prepared.place, scale), scale)
    draw(Store(prepared.place.out / MIXED_STORE), scale.beyond_seeds)
    return selection


def choose_wrong(prepared: Prepared, scale: Scale) -> dict[str, Any]:
    """The datasets of WRONG_STORE, by the policy with noise; returns what the selection told."""
    answers = _answers(prepared.place, scale, blurred=True)
    selection = _select(partial(_strive_data, prepared, WRONG_STORE), answers, scale)
    draw(Store(prepared.place.out / WRONG_STORE), scale.seeds)
    return selection


def _strive_data(prepared: Prepared, store: str, command: str, *words: str) -> dict[str, Any]:
    return prepared.once("strive-data", command, *words, "--store", str(prepared.place.out / store), "--json")


def _answers(place: Workplace, scale: Scale, blurred: bool = False) -> tuple[str, ...]:
    """How a policy is asked."""
    sampling = ("--temperature", str(scale.temperature), "--max-tokens", str(scale.max_tokens))
    return ("--policy", str(place.noisy_start if blurred else place.start), "--split", "train", *sampling)


def _on_views(scale: Scale) -> tuple[str, ...]:
    return ("--views", "variants", "--draws", str(scale.draws))


def _select(do: Callable[..., dict[str, Any]], answers: Sequence[str], scale: Scale) -> dict[str, Any]:
    """POOL, and SELECTED on the views that STRIVE trains on."""
    pool = do("select", "--name", POOL, "--keep-all", *answers, *_on_views(scale))
    if pool["kept"] != pool["pool"]:
        raise UserError(f"dataset {POOL}", f"{pool['kept']} of {pool['pool']} samples: expected all", "a new --out")
    return do("select", "--name", SELECTED, "--min-var", str(MIN_VAR), *answers, *_on_views(scale))
