"""docs/results.md of the figures: tables, verdicts, and where every figure comes from. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.markdown import fence, table
from toyworld.reproduce.claims import NAMES, SHORT, claims, over_controls, shown
from toyworld.reproduce.plan import (
    ANCHOR,
    BEYOND,
    CONTROLS,
    MIN_VAR,
    MIXED_STORE,
    SMALL,
    SMALL_GRPO,
    STORE,
    TABLES,
    WRONG_STORE,
    Table,
)

Figures = Mapping[str, Any]


def page(found: Figures, beyond: Figures | None) -> str:
    """The whole page.

    Args:
        found, beyond: what `toyworld.reproduce.collect.figures` made of the two kinds of runs; None: not run yet.
    """
    parts = [_head(found), _claims(found), *(_table(each, found) for each in TABLES), _beyond(beyond)]
    runs = [*found["runs"], *(run for run in (beyond or {"runs": []})["runs"] if run not in found["runs"])]
    return "\n".join([*parts, _runs(runs)])


def _head(found: Figures) -> str:
    scale, hit = found["scale"], found["hit_rate"]
    chosen = found["selections"][STORE]
    before, blurred = (
        f"{start['accuracy_importance']:.3f} on importance views and {start['accuracy_anchor']:.3f} on anchors"
        for start in found["starts"]
    )
    return f"""# Results

What the two papers claim, measured on the toy world with honest controls. Everything here is written by a program from
the runs' own metrics and answers:

    make reproduce                                                 this page, at most 40 minutes on 2 cores
    python -m toyworld.reproduce --out results --beyond            the section "Beyond the papers"

Two runs on one machine write the same page, to the byte. How long everything took is in [times](results/times.md).
A doubted figure is found in the table of [runs](#runs): its folder holds `config.json` (all settings), `run.json`
(dataset and policy) and `metrics.jsonl` (every step); its answers to the held-out samples lie below `eval`.

**Setting.** {scale["clips"]} training clips and {scale["test_clips"]} held-out ones, five questions each;
{found["samples"]["accuracy"]} held-out samples have an accuracy, {found["samples"]["miou"]} a span (mIoU). Every run
takes {scale["steps"]} steps of {scale["groups"]} samples with {scale["pool"]} rollouts each (GRPO 1 x {scale["pool"]},
STRIVE 4 x {scale["pool"] // 4}), lr {scale["lr"]:g}, temperature {scale["temperature"]:g}, {scale["seeds"]} seeds.
A uniform view shows all evidence of {hit["uniform"]:.1%} of the samples, an importance view of {hit["importance"]:.1%}.
The selection (`--min-var {MIN_VAR:g} --views variants --draws {scale["draws"]}`) keeps {chosen["kept"]} of
{chosen["pool"]} samples.

**Start.** Runs start from a policy that was taught like the shipped one, with {scale["taught"]} lessons only (`python
-m toyworld.reproduce.start --taught {scale["taught"]}`): its greedy accuracy is {before}.
Those that compare rewards, and those on `wrong-store`, start from the shipped policy with noise of
{scale["noise"]:g} on its language model (`--noise {scale["noise"]:g}`): {blurred}.
It knows some of when things happen, of which the other one knows next to nothing. From the shipped policy itself no arm
gains accuracy by this much training (`make demo` shows it).

**Other pools.** Temporal-RLT chose 32k samples of 490k; of this pool most teach something. Two more have the same
clips, and are held to the same held-out samples, which are right (`python -m toyworld.reproduce.annotations`).
{_spoilt(found, WRONG_STORE, "have another answer or another span", "")}
{_spoilt(found, MIXED_STORE, "have options, answer and span of another question", " --mixed-up")}
Runs on the latter have {scale["beyond_seeds"]} seeds.

**Reading.** ± is the population standard deviation over the seeds. In brackets stands the 95 % bootstrap interval of a
difference; held-out samples and seeds are both drawn anew, and arms are paired by both. With {scale["seeds"]} seeds
an interval is rather too narrow than too wide.
"""


def _spoilt(found: Figures, store: str, how: str, option: str) -> str:
    told, wrong, share = found["selections"][store], found["wrong"][store], found["scale"][_SHARE[store]]
    return (
        f"Of the annotations in `{store}` {wrong['all']:.0%} {how}\n(`--wrong {share:g}{option}`); its selection keeps "
        f"{told['kept']} of {told['pool']} samples, {wrong['selected']:.0%} of them such."
    )


_SHARE = {WRONG_STORE: "wrong", MIXED_STORE: "mixed_up"}


def _claims(found: Figures) -> str:
    body = [(claim.paper, claim.text, claim.verdict, claim.evidence) for claim in claims(found)]
    head = ("paper", "claim", "here", "STRIVE, the dual reward or the selection, minus or by its control")
    return f"## The papers' claims\n\n{table(head, body)}"


def _value(measure: str, figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    share = measure in ("dead_group_share", "between_share")
    scale, digits, mark = (100, 1, " %") if share else (1, 3, "")
    return f"{scale * figure['mean']:.{digits}f}{mark} ± {scale * figure['spread']:.{digits}f}"


def _figures_of(arms: Sequence[tuple[str, Mapping[str, Any]]], measures: Sequence[str]) -> str:
    head = ("arm", *(NAMES[name] for name in measures))
    return table(head, [(title, *(_value(name, arm.get(name)) for name in measures)) for title, arm in arms])


def _table(each: Table, found: Figures) -> str:
    arms = [(each.title_of(arm), found["arms"][arm]) for arm in each.arms]
    others = [arm for arm in each.arms if arm != each.subject]
    measures = [name for name in each.measures if name in found["against"][each.subject][others[0]]]
    minus = [
        (each.title_of(arm), *(shown(found["against"][each.subject][arm][name]) for name in measures)) for arm in others
    ]
    head = (f"{each.title_of(each.subject)} minus", *(NAMES[name] for name in measures))
    curves = (
        "\nThe three curves of STRIVE's Figure 3: mean over the seeds, and their range.\n\n"
        "![reward deviation, dead groups and gradient norm over the steps](results/curves.png)\n"
    )
    picture = curves if each is TABLES[0] else ""
    note = _notes(each, found)
    return f"## {each.title}\n\n{note}{_figures_of(arms, each.measures)}\n{table(head, minus)}{picture}"


def _notes(each: Table, found: Figures) -> str:
    begun = found["starts"][0]["accuracy_importance"]
    notes = {
        "Arms": "All on the selected samples. SFT imitates answers by letter, as benchmarks want them, with an empty "
        "thought; this policy\nwas taught to answer in words, and is too small to look letters up.\n\n",
        "Selection": "GRPO on one importance view.\n\n",
        "Selection among wrong annotations": "GRPO on one importance view, on `wrong-store`, from the policy "
        "with noise.\n\n",
        "Selection where most is wrong": "GRPO on one importance view, on `mixed-store`. The policy begins at an "
        f"accuracy of {begun:.3f}\non importance views: what is mixed up takes some of it away.\n\n",
        "Reward, on grounded choice": "STRIVE on the selected grounded choices, from the policy with noise.\n\n",
        "Advantage": "STRIVE on the selected samples; what a reward is compared with.\n\n",
    }
    return notes[each.title]


def beats(against: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Whether a recipe's accuracy is above both controls' on both views, beyond the intervals."""
    above = [against[c][f"accuracy_{v}"][1] > 0 for c in CONTROLS for v in ("importance", "anchor")]
    return "yes" if all(above) else f"in {sum(above)} of {len(above)}"


def _beyond(found: Figures | None) -> str:
    title = "## Beyond the papers\n\n"
    if found is None:
        return title + "Not run: `python -m toyworld.reproduce --out results --beyond`.\n"
    arms = [(BEYOND[name].title, found["arms"][name]) for name in found["arms"]]
    recipes = [name for name in found["arms"] if name not in CONTROLS]
    columns = [(c, f"accuracy_{v}", f"{SHORT[c]}, {v}") for c in CONTROLS for v in ("importance", "anchor")]
    head = ("recipe", "seeds", *(title for _, _, title in columns), "beats both")
    body = [
        (
            BEYOND[name].title,
            len(found["arms"][name]["accuracy_anchor"]["seeds"]),
            *(shown(found["against"][name][control][measure]) for control, measure, _ in columns),
            beats(found["against"][name]),
        )
        for name in recipes
    ]
    winners = [
        BEYOND[name].title
        for name in recipes
        if beats(found["against"][name]) == "yes" and not BEYOND[name].screened and name != SMALL_GRPO
    ]
    pools = found["against"][SMALL][SMALL_GRPO]
    verdict = (
        f"**Beats both controls on both views: {', '.join(winners)}.**"
        if winners
        else "**No recipe beats both controls on both views beyond its interval.**"
    )
    measures = ("reward_std", "dead_group_share", "accuracy_importance", "accuracy_anchor", "miou_importance")
    seeds = found["scale"]["beyond_seeds"]
    rewards = "".join(f"- {claim.text}: {claim.evidence}\n" for claim in over_controls(found["arms"]))
    return (
        f"{title}Looked for: a recipe that beats both controls, at the same rollouts (or fewer) and steps, in\n"
        f"held-out accuracy on the anchor view and on the importance view, with {seeds} seeds;\n"
        f"some recipes are only screened, with fewer. {verdict}\n\n"
        f"{_figures_of(arms, measures)}\n"
        f"STRIVE's claims about the rewards of a pool, with {seeds} seeds:\n\n{rewards}\n"
        f"Recipe minus control, accuracy:\n\n{table(head, body)}\n"
        f"Small pools with four views minus small pools with one importance view: accuracy on the importance view\n"
        f"{shown(pools['accuracy_importance'])}, on the anchor view {shown(pools['accuracy_anchor'])}.\n"
    )


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    body = [(run["name"], run["folder"], run["seed"]) for run in runs]
    commands = "\n".join(run["command"] for run in runs)
    return (
        f"## Runs\n\n{table(('run', 'folder', 'seed'), body)}\nThe commands, in the same order, after those of the "
        f"preparation (`results/prepared`):\n\n{fence(commands, 'sh')}"
    )


def times(found: Figures, machine: str) -> str:
    """results/times.md: wall times, which differ from call to call."""
    runs = {run["name"]: run for run in found["runs"]}
    body = [(name, f"{run['seconds_a_step']:.2f} s", f"{run['seconds']:.0f} s") for name, run in runs.items()]
    arms: dict[str, list[float]] = {}
    for run in runs.values():
        arms.setdefault(run["arm"], []).append(run["seconds_a_step"])
    base = sum(arms[ANCHOR]) / len(arms[ANCHOR])
    by_arm = [(arm, f"{sum(v) / len(v):.2f} s", f"{sum(v) / len(v) / base:.2f}") for arm, v in arms.items()]
    head = ("arm", "a step", "times GRPO on the anchor")
    prepared = [(each["command"], f"{each['seconds']:.0f} s") for each in found["prepared"]]
    return (
        f"# Wall times of the results\n\n{machine} Two runs side by side, one thread each.\n\n{table(head, by_arm)}\n"
        f"{table(('run', 'median step', 'all steps'), body)}\n{table(('preparation', 'took'), prepared)}"
    )
