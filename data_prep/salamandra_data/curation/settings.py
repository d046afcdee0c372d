"""What a curation run is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from salamandra_data.curation.harm_score import HarmScore
from salamandra_data.errors import DataError
from salamandra_data.readers import DocumentKeys
from salamandra_data.storage import Location

NOT_PROSE = frozenset({"code"})
"""Languages that are not judged as prose: no language identification, score or paragraph deduplication."""


@dataclass(frozen=True)
class CurationSettings:
    """Options of one run.

    Attributes:
        inputs: files, directories or patterns, or fsspec URLs of these.
        out: directory for documents, counts, samples and the page.
        keys: where text and language are in a record.
        skip_malformed: count malformed lines as removed, instead of stopping at the first.
        identify_language: give each document the language that the models find, instead of checking the declared one.
        check_language: remove documents that are not in their declared language.
        min_score: documents of a lower quality score are removed; None for no score.
        harm: a score for harmful content, if there is one.
        mask_personal_data: replace e-mail and IP addresses, phone numbers, IBANs and national ids by marks.
        exact, near, paragraphs: which duplicates are removed.
        across_sources: look for duplicates over all sources, not within each.
        decontaminate: files of benchmark tasks; documents that share ``ngram`` words with one are removed.
        ngram: words in a row.
        min_words: documents left with fewer words when repeated paragraphs are gone are removed.
        samples: removed documents kept per reason.
        seed: which ones.
    """

    inputs: Sequence[Location | str]
    out: Path
    keys: DocumentKeys = field(default_factory=DocumentKeys)
    skip_malformed: bool = False
    identify_language: bool = False
    check_language: bool = True
    min_score: float | None = 0.8
    harm: HarmScore | None = None
    mask_personal_data: bool = True
    exact: bool = True
    near: bool = True
    paragraphs: bool = True
    across_sources: bool = False
    decontaminate: Sequence[Path] = ()
    ngram: int = 13
    min_words: int = 5
    samples: int = 20
    seed: int = 0

    def check(self) -> None:
        """Refuse values outside their range, before anything is read.

        Raises:
            DataError: naming option and value.
        """
        self.keys.check()
        if self.min_score is not None and not 0.0 <= self.min_score <= 1.0:
            raise DataError(f"--min-score {self.min_score:g} is not in [0, 1]")
        if self.harm is not None:
            self.harm.check()
        for option, value, least in (
            ("--ngram", self.ngram, 2),
            ("--min-words", self.min_words, 0),
            ("--samples", self.samples, 0),
        ):
            if value < least:
                raise DataError(f"{option} {value}: at least {least} is needed")
        for path in self.decontaminate:
            if not Path(path).is_file():
                raise DataError(f"--decontaminate {path}: no such file")
