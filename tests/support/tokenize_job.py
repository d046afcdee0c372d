"""A tokenization job in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salamandra_data.option_groups import InputOptions
from salamandra_data.readers import DocumentKeys
from salamandra_data.storage import Location
from salamandra_data.tokenization import TokenizeJob


def tokenize_job(
    inputs: Sequence[Location | str],
    tokenizer: Path,
    out: Path,
    keys: DocumentKeys | None = None,
    *,
    skip_malformed: bool = False,
    **options: Any,
) -> TokenizeJob:
    """The job of these documents, with the defaults of the command where nothing is said."""
    keys = keys or DocumentKeys()
    documents = InputOptions(
        input=tuple(map(str, inputs)),
        text_key=keys.text,
        language=keys.language,
        language_key=keys.language_key,
        on_error="skip" if skip_malformed else "fail",
    )
    return TokenizeJob(documents=documents, tokenizer=tokenizer, out=out, **options)
