"""What a filter is: one class that owns its name, its reason, its options, and its part of the account.

Whoever wants another filter writes a subclass of :class:`CurationFilter` in a module of their own, and names it in the
file that ``--filters`` takes; ours are written in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from salamandra_data.errors import DataError

if TYPE_CHECKING:
    from datatrove.data import Document

    from salamandra_data.curation.counts import Removals


class NoOptions(BaseModel):
    """Options of a filter that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Section:
    """A part of the page: what a filter found.

    Attributes:
        title: heading.
        text: one paragraph, if it needs any.
        plots: matplotlib figures, as :func:`salamandra_data.figures.figure` makes them.
        tables: heading and rows of each, all text.
    """

    title: str
    text: str = ""
    plots: Sequence[Any] = ()
    tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]] = ()


class CurationFilter(ABC):
    """Looks at one document after the other, and says of each why it is removed, or that it stays.

    An instance is made for each input file, so that it may count in attributes of its own.

    Attributes:
        name: under which its removals are counted; lower-case letters, digits, ``_`` and ``-``.
        explanation: why it removes documents, in a few words for the page.
        Options: a pydantic model of its options.
        removes: whether it removes anything. One that only changes documents has no reason in the account.
        report_key: where ``curation.json`` has what it found, at its top; for filters of other packages this is
            below ``findings``.
        nothing_found: what stands there when it was not asked for.
    """

    name: ClassVar[str]
    explanation: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel]] = NoOptions
    removes: ClassVar[bool] = True
    report_key: ClassVar[str | None] = None
    nothing_found: ClassVar[Any] = {}

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def is_wanted(cls, options: Any) -> bool:
        """Whether the options ask for it."""
        return True

    @abstractmethod
    def examine(self, document: Document) -> str | None:
        """Whether a document is removed.

        Args:
            document: its ``text`` and ``metadata`` (``language``, ``source``, ``licence``) may be changed.
        Returns:
            None if it stays; else what was found, for the sample of removed documents. It may be empty.
        """

    def findings(self) -> Any:
        """What it counted besides removals, as JSON: numbers, lists and objects of text keys."""
        return {}

    @classmethod
    def merged(cls, one: Any, other: Any) -> Any:
        """The findings of two files as one. Numbers are added, however deep they are."""
        if isinstance(one, Mapping):
            keys = [*one, *(key for key in other if key not in one)]
            return {
                key: cls.merged(one[key], other[key])
                if key in one and key in other
                else one.get(key, other.get(key))
                for key in keys
            }
        if isinstance(one, list):
            return [cls.merged(left, right) for left, right in zip(one, other, strict=True)]
        return one + other

    @classmethod
    def sections(cls, findings: Any, settings: Mapping[str, Any]) -> Sequence[Section]:
        """Its part of the page.

        Args:
            findings: of all files together.
            settings: its options, as JSON.
        """
        return ()


def filtered(
    step: CurationFilter, documents: Iterable[Document], removals: Removals | None
) -> Iterator[Document]:
    """The documents that stay; those that go are counted in ``removals``.

    Raises:
        DataError: the filter fails on a document, or gives something else than text or None.
    """
    for document in documents:
        try:
            found = step.examine(document)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"filter {step.name}: {type(error).__name__} on document {document.id}: {error}"
            ) from error
        if found is None:
            yield document
        elif isinstance(found, str) and removals is not None:
            document.metadata["detail"] = found
            removals.write(document)
        else:
            raise DataError(
                f"filter {step.name}: gives {found!r} for document {document.id}\n"
                "  it must return None for a document that stays, and text for one that is removed"
            )
