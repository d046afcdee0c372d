"""What a curation run is asked to do: the options of its filters, of the deduplications, and of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from megatron_salamandra.foundation.options import Option, Options, Seed
from salamandra_data.curation.contamination import ContaminationOptions
from salamandra_data.curation.harm_score import HarmOptions
from salamandra_data.curation.language_filter import LanguageOptions
from salamandra_data.curation.personal_data import PersonalDataOptions
from salamandra_data.curation.quality_score import ScoreOptions
from salamandra_data.option_groups import ExecutorOptions, InputOptions, OutputPath

_AtLeastNone = Annotated[int, Field(ge=0)]


class DuplicateOptions(Options):
    """Which duplicates are removed."""

    exact: Annotated[bool, Option("keep documents of equal text", flag="--keep-exact")] = True
    near: Annotated[bool, Option("keep documents of nearly equal text (MinHash)", flag="--keep-near")] = True
    paragraphs: Annotated[bool, Option("keep paragraphs that occurred before", flag="--keep-paragraphs")] = (
        True
    )
    across_sources: Annotated[bool, Option("look for duplicates over all sources, not within each")] = False
    min_words: Annotated[
        _AtLeastNone,
        Option("a document left with fewer when repeated paragraphs are gone is removed"),
    ] = 5


class RunOptions(Options):
    """Where a run writes, what it keeps to show, and filters of the user's own."""

    out: Annotated[
        OutputPath, Option("directory for all that is written", metavar="DIR", decides_output=False)
    ]
    filters: Annotated[
        Path | None,
        Option(
            "YAML that names filters of your own, which run after these and before personal data is masked",
            metavar="FILE",
            decides_output=False,
        ),
    ] = None
    samples: Annotated[_AtLeastNone, Option("removed documents kept per reason")] = 20
    seed: Annotated[Seed, Option("decides which removed documents are kept")] = 0


class CurationSettings(  # the last base comes first in --help and report
    RunOptions,
    DuplicateOptions,
    PersonalDataOptions,
    HarmOptions,
    ScoreOptions,
    ContaminationOptions,
    LanguageOptions,
    InputOptions,
):
    """All options of a run, defaults included."""


class CurateOptions(Options):
    """Options of the command: the run, and which machines do it."""

    curation: CurationSettings
    machines: ExecutorOptions
