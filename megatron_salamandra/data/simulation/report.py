"""A simulated run as tables, CSV and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from megatron_salamandra.data.simulation.simulate import PhaseResult
from megatron_salamandra.data.simulation.token_unit import TokenUnit, token_unit
from salamandra_data.blend_plan import factor_text
from salamandra_data.figures import figure
from salamandra_data.text_table import text_table

_COLUMNS = (
    "phase",
    "run_tokens",
    "language",
    "share",
    "phase_tokens",
    "total_tokens",
    "epochs",
    "gap_samples",
    "revisit_tokens",
)
_LABEL_POINTS = 8  # size of the type
_LABEL_LINE_INCHES = 1.1 * _LABEL_POINTS / 72


def phase_tables(results: Sequence[PhaseResult]) -> list[str]:
    """One table per phase, all in one unit: a line per language at the end of the phase, largest share first."""
    unit = _unit_of_languages(results)
    return [_phase_table(result, unit) for result in results]


def _unit_of_languages(results: Sequence[PhaseResult]) -> TokenUnit:
    """The unit in which every language shows two digits or more of what there is and what a phase draws."""
    available = [language.available_tokens for result in results for language in result.languages]
    drawn = [point.phase_tokens for result in results for point in result.end]
    return token_unit([*available, *drawn], least=0.01)


def _phase_table(result: PhaseResult, unit: TokenUnit) -> str:
    pairs = sorted(
        zip(result.languages, result.end, strict=True), key=lambda pair: (-pair[0].share, pair[0].source)
    )
    rows = [
        (
            language.source,
            unit.text(language.available_tokens, 3),
            factor_text(language.factor),
            f"{float(language.share):.4%}",
            unit.text(point.phase_tokens, 3),
            unit.text(point.total_tokens, 3),
            f"{point.epochs:.3f}",
            f"{language.gap_samples:,.1f}",
            unit.text(language.revisit_tokens, 1),
        )
        for language, point in pairs
    ]
    total = (
        "all",
        unit.text(sum(language.available_tokens for language in result.languages), 3),
        "",
        "100.0000%",
        unit.text(sum(point.phase_tokens for point in result.end), 3),
        unit.text(sum(point.total_tokens for point in result.end), 3),
        "",
        "",
        "",
    )
    heading = (
        "language",
        unit.heading("available"),
        "factor",
        "share",
        unit.heading("in phase"),
        unit.heading("in run"),
        "epochs",
        "gap (samples)",
        unit.heading("same text after"),
    )
    return text_table(heading, rows, total)


def simulation_csv(results: Sequence[PhaseResult]) -> bytes:
    """One line per point and language."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for result in results:
        facts = {language.source: language for language in result.languages}
        for point in result.points:
            language = facts[point.source]
            writer.writerow(
                (
                    point.phase,
                    point.run_tokens,
                    point.source,
                    f"{float(language.share):.9f}",
                    point.phase_tokens,
                    point.total_tokens,
                    f"{point.epochs:.6f}",
                    f"{language.gap_samples:.3f}",
                    round(language.revisit_tokens),
                )
            )
    return stream.getvalue().encode()


def repeated_languages(results: Sequence[PhaseResult], max_epochs: float) -> str:
    """Languages whose text is walked more than ``max_epochs`` times, with their epochs; empty if there are none."""
    most: dict[str, float] = {}
    for result in results:
        for point in result.end:
            most[point.source] = max(most.get(point.source, 0.0), point.epochs)
    repeated = sorted((-epochs, language) for language, epochs in most.items() if epochs > max_epochs)
    return ", ".join(f"{language} {-epochs:.1f}" for epochs, language in repeated)


def simulation_plot(results: Sequence[PhaseResult]) -> Any:
    """Tokens (above, logarithmic) and epochs (below) of each language over the run."""
    unit = _unit_of_languages(results)
    run_unit = token_unit([sum(result.tokens for result in results)], least=1)
    drawing, _ = figure(9, 12)
    drawing.clear()
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    lines: dict[str, tuple[list[float], list[float], list[float]]] = {}
    for result in results:
        for point in result.points:
            places, tokens, epochs = lines.setdefault(point.source, ([], [], []))
            places.append(point.run_tokens / run_unit.tokens)
            tokens.append(point.total_tokens / unit.tokens)
            epochs.append(point.epochs)
    for places, tokens, epochs in lines.values():
        started = next((place for place, value in enumerate(tokens) if value), 0)
        above.plot(places[started:], tokens[started:], linewidth=1)
        below.plot(places, epochs, linewidth=1)
    above.set_yscale("log")
    above.set_ylabel(f"{unit.name} seen")
    below.set_ylabel("epochs of the language's text")
    below.set_xlabel(f"{run_unit.name} of the run")
    for axes, values in (
        (above, {language: tokens[-1] for language, (_, tokens, _) in lines.items()}),
        (below, {language: epochs[-1] for language, (_, _, epochs) in lines.items()}),
    ):
        _label_ends(axes, values)
        axes.grid(alpha=0.3)
    end = 0.0
    for result in results:
        start, end = end, end + result.tokens / run_unit.tokens
        below.text(
            (start + end) / 2, 0.97, result.name, transform=below.get_xaxis_transform(), ha="center", va="top"
        )
        for axes in (above, below):
            axes.axvline(end, color="black", linewidth=0.6, linestyle=":")
    return drawing


def _label_ends(axes: Any, values: dict[str, float]) -> None:
    """Names of languages right of the axes, those at about the same height in one line."""
    groups: list[tuple[float, list[str]]] = []
    least_distance = _LABEL_LINE_INCHES / (axes.get_position().height * axes.figure.get_figheight())
    to_axes = axes.transData + axes.transAxes.inverted()
    for language, value in sorted(values.items(), key=lambda pair: (pair[1], pair[0])):
        height = float(to_axes.transform((0, value))[1])
        if groups and height - groups[-1][0] < least_distance:
            groups[-1][1].append(language)
        else:
            groups.append((height, [language]))
    for height, languages in groups:
        shown = " ".join(languages) if len(languages) <= 6 else f"{len(languages)} others"
        axes.text(1.01, height, shown, transform=axes.transAxes, va="center", fontsize=_LABEL_POINTS)
