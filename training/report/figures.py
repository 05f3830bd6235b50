"""Figures 6 and 7 of He et al. 2015 from runs of one's own: error curves and layer responses."""

from collections.abc import Callable, Sequence
from statistics import mean

from training.report.charts import Axes, Line, draw_lines
from training.report.diagnosis import Diagnosis

FAMILIES = ("plain", "residual")


def name_run(run: Diagnosis) -> str:
    """Network, recipe and seed."""
    return f"{run.recipe.network}, {run.recipe.name}, seed {run.recipe.run.seed}"


def is_plain(run: Diagnosis) -> bool:
    """Whether the network has no shortcuts."""
    return run.recipe.network.startswith("plain")


def draw_curves(runs: Sequence[Diagnosis]) -> list[str]:
    """Figure 6: a panel for the plain networks and one for the residual ones, on the same scale."""
    top = max(
        [
            value
            for run in runs
            for key in ("train_error", watched_error(run))
            for _, value in _points(run, key)
        ],
        default=1.0,
    )
    panels = []
    for family, members in _families(runs):
        lines = [line for number, run in members for line in _curves(run, number)]
        axes = Axes(f"{family} networks", "thousand iterations", "error %", (0.0, max(1.0, top)))
        panels.append(draw_lines(lines, axes))
    return panels


def watched_error(run: Diagnosis) -> str:
    """The journal's name for the held-out error it followed: the test images', or the validation split's."""
    return "test_error" if any("test_error" in line for line in run.evaluations) else "validation_error"


def draw_responses(runs: Sequence[Diagnosis]) -> list[str]:
    """Figure 7: the deviation of each 3x3 layer's response, in the network's order and by size."""

    def panel(title: str, x: str, order: Callable[[Diagnosis], Sequence[float]]) -> str:
        lines = [
            Line(
                name_run(run),
                tuple((float(place), value) for place, value in enumerate(order(run), 1)),
                number,
                "dashed" if is_plain(run) else "solid",
            )
            for number, run in enumerate(runs)
        ]
        return draw_lines(lines, Axes(title, x, "standard deviation", is_log=True))

    return [
        panel("in the order of the layers", "3x3 layer", lambda run: run.responses),
        panel("by size", "3x3 layer, sorted", lambda run: sorted(run.responses, reverse=True)),
    ]


def compare_responses(runs: Sequence[Diagnosis]) -> list[str]:
    """What figure 7 claims, a sentence for each pair of these runs with one recipe's length and seed."""
    sentences = []
    for one in runs:
        for other in runs:
            if (
                _is_alike(one, other)
                and is_plain(one)
                and not is_plain(other)
                and _depth(one) == _depth(other)
            ):
                sentences.append(_compare("a residual net responds less than the plain one", other, one))
            if (
                _is_alike(one, other)
                and not is_plain(one)
                and not is_plain(other)
                and _depth(one) < _depth(other)
            ):
                sentences.append(_compare("a deeper residual net responds less", other, one))
    return sentences


def _compare(claim: str, less: Diagnosis, more: Diagnosis) -> str:
    low, high = mean(less.responses), mean(more.responses)
    verdict = "yes" if low < high else "no"
    return (
        f"{claim}: {verdict} (mean {low:.3f} for {less.recipe.network}, "
        f"{high:.3f} for {more.recipe.network}; seed {less.recipe.run.seed})"
    )


def _is_alike(one: Diagnosis, other: Diagnosis) -> bool:
    """Whether two runs differ in their network alone, and have come equally far."""
    ours, theirs = (
        (run.steps, run.recipe.schedule, run.recipe.optimizer, run.recipe.run.seed) for run in (one, other)
    )
    return ours == theirs


def _depth(run: Diagnosis) -> int:
    return int("".join(letter for letter in run.recipe.network.partition("-")[0] if letter.isdigit()))


def _families(runs: Sequence[Diagnosis]) -> list[tuple[str, list[tuple[int, Diagnosis]]]]:
    """Runs with their place, which is their colour, by family; families without runs are left out."""
    numbered = list(enumerate(runs))
    groups = [
        (family, [(number, run) for number, run in numbered if is_plain(run) == (family == "plain")])
        for family in FAMILIES
    ]
    return [(family, members) for family, members in groups if members]


def _curves(run: Diagnosis, number: int) -> list[Line]:
    watched, name = watched_error(run), name_run(run)
    return [
        Line(f"{name}: {watched.partition('_')[0]}", _points(run, watched), number),
        Line(f"{name}: training", _points(run, "train_error"), number, "dashed"),
        Line("", ((run.state.step / 1000, run.test_error),), number),
    ]


def _points(run: Diagnosis, key: str) -> tuple[tuple[float, float], ...]:
    lines = [(line.get("step"), line.get(key)) for line in run.evaluations]
    return tuple(
        (x / 1000, float(y)) for x, y in lines if isinstance(x, int | float) and isinstance(y, int | float)
    )
