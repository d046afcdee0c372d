"""Reading gettext catalogues."""

from __future__ import annotations

import contextlib
import gettext
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salamandra_data.demo.catalogue import CatalogueError, Message, read_mo, read_po

PO = """
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"

#: a.py:1
msgid "Save"
msgstr "Desa"
#, fuzzy
msgid "Open"
msgstr "Obre?"

msgctxt "month"
msgid "May"
msgstr "maig"

#, python-format
msgid ""
"%(count)d file "
"changed"
msgid_plural "%(count)d files changed"
msgstr[0] "un fitxer \\"nou\\""
msgstr[1] ""
"%(count)d fitxers\\n"
"canviats"

msgid "Untranslated"
msgstr ""

#~ msgid "Old"
#~ msgstr "Vell"
"""


def test_po_keeps_order_and_leaves_out_fuzzy_obsolete_and_untranslated() -> None:
    assert list(read_po(PO.encode())) == [
        Message(["Save"], ["Desa"]),
        Message(["May"], ["maig"]),
        Message(
            ["%(count)d file changed", "%(count)d files changed"],
            ['un fitxer "nou"', "%(count)d fitxers\ncanviats"],
        ),
    ]


@pytest.mark.parametrize(
    "text", ['msgid "a"\nmsgstr "b\n', 'msgid "a"\nfoo "b"\n', '"lost"\n', 'msgid "a"\nmsgstr 3\n']
)
def test_damaged_po_names_the_line(text: str) -> None:
    with pytest.raises(CatalogueError, match=r"line \d"):
        list(read_po(text.encode()))


def test_po_in_another_encoding_is_refused() -> None:
    with pytest.raises(CatalogueError, match="UTF-8"):
        list(read_po('msgid "a"\nmsgstr "é"\n'.encode("latin-1")))


def compile_mo(entries: dict[str, str], order: str) -> bytes:
    """A .mo file as msgfmt writes it, of either byte order."""
    pairs = sorted((key.encode(), value.encode()) for key, value in entries.items())
    header = 28
    texts = header + 16 * len(pairs)
    tables: list[list[bytes]] = [[], []]
    blob = b""
    for column in (0, 1):
        for pair in pairs:
            tables[column].append(struct.pack(order + "2I", len(pair[column]), texts + len(blob)))
            blob += pair[column] + b"\0"
    head = struct.pack(order + "7I", 0x950412DE, 0, len(pairs), header, header + 8 * len(pairs), 0, 0)
    return head + b"".join(tables[0]) + b"".join(tables[1]) + blob


word = st.text(st.characters(exclude_characters="\0\x04", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.dictionaries(word, word, max_size=8), st.sampled_from("<>"))
def test_mo_gives_what_gettext_gives(entries: dict[str, str], order: str) -> None:
    data = compile_mo({"": "Content-Type: text/plain; charset=UTF-8\n", **entries}, order)
    reference = gettext.GNUTranslations(io.BytesIO(data))
    messages = list(read_mo(data))
    assert {message.originals[0]: message.translations[0] for message in messages} == entries
    assert all(reference.gettext(message.originals[0]) == message.translations[0] for message in messages)


@given(st.binary(max_size=64))
def test_no_bytes_make_the_mo_reader_fail_in_another_way(data: bytes) -> None:
    with contextlib.suppress(CatalogueError):
        list(read_mo(data))


def test_mo_splits_plurals_and_drops_contexts() -> None:
    data = compile_mo({"menu\x04file\0files": "fitxer\0fitxers"}, "<")
    assert list(read_mo(data)) == [Message(["file", "files"], ["fitxer", "fitxers"])]
