"""Text out of Debian packages."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from salamandra_data.demo.debian import DebianSource, add_debian_packages
from salamandra_data.demo.debian_text import (
    extract,
    manual_strings,
    mediawiki_strings,
    page_strings,
    rule_for,
)
from salamandra_data.demo.documents import CorpusWriter
from salamandra_data.errors import DataError

PAGE = """<html><head><title>Títol</title><script>let x = 1;</script></head><body>
<ul class="docnav"><li>Anterior</li></ul>
<h1>Una pàgina</h1><p>Text amb <b>negreta</b> i
dues línies.</p><pre>$ ls -l</pre><p>Final<br>ara</p><img src="x"></body></html>"""

MANUAL = r""".\" a comment
.TH ls 1
.SH NOM
ls \- llista el \fBcontingut\fP
.PP
Un paràgraf
en dues línies.
.nf
exemple \-\-literal
.fi
.BR ls (1)
fi
"""


def test_pages_give_paragraphs_without_scripts_navigation_and_listings() -> None:
    assert list(page_strings(PAGE.encode())) == [
        "Una pàgina",
        "Text amb negreta i dues línies.",
        "Final ara",
    ]


def test_manuals_give_paragraphs_without_macros() -> None:
    paragraphs = list(manual_strings(gzip.compress(MANUAL.encode())))
    assert paragraphs == ["NOM ls - llista el contingut", "Un paràgraf en dues línies.", "ls(1) fi"]


def test_mediawiki_gives_messages_without_metadata() -> None:
    data = json.dumps(
        {"@metadata": {"authors": ["x"]}, "a": "Desa la [[pàgina]]", "b": "{{PLURAL:$1|x}}Obre"}
    ).encode()
    assert list(mediawiki_strings(data)) == ["Desa la pàgina", "Obre"]


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("usr/share/mediawiki/languages/i18n/oc.json", "oc"),
        ("usr/share/mediawiki/languages/i18n/sr-el.json", "sh"),
        ("usr/share/mediawiki/extensions/X/i18n/api/sr-ec.json", "sr"),
        ("usr/share/libreoffice/help/pt-BR/text/sdraw/01/a.html", "pt"),
        ("usr/lib/libreoffice/program/resource/cy/LC_MESSAGES/acc.mo", "cy"),
        ("usr/share/help/C/gnome-help/a.page", "en"),
        ("usr/share/doc/debian-handbook/html/nb-NO/apt.html", "no"),
        ("usr/share/man/man1/ls.1.gz", "en"),
        ("usr/share/man/de/man1/ls.1.gz", "de"),
        ("usr/share/man/ja/man1/ls.1.gz", None),
        ("usr/share/doc/mediawiki/copyright", None),
    ],
)
def test_paths_tell_the_language(path: str, language: str | None) -> None:
    rule = rule_for(path)
    assert (rule[0] if rule else None) == language


def test_damaged_files_give_nothing() -> None:
    assert extract(manual_strings, b"not gzip") == []
    assert extract(mediawiki_strings, b"{") == []
    assert extract(page_strings, b"\xff\xfe") == []


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_untranslated_passages_of_a_package_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    help_pages = root / "usr/share/help"
    for locale, text in (("ca", "Un paràgraf traduït."), ("C", "A paragraph in English.")):
        (help_pages / locale / "x").mkdir(parents=True)
        page = f"<page><p>{text}</p><p>A paragraph in English, not translated.</p></page>"
        (help_pages / locale / "x" / "a.page").write_text(page)
    (root / "DEBIAN").mkdir()
    control = (
        "Package: docs\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (root / "DEBIAN" / "control").write_text(control)
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", str(root), str(cache / "docs_1.0_all.deb")],
        check=True,
        capture_output=True,
    )
    with CorpusWriter(tmp_path / "corpus") as writer:
        records = add_debian_packages(
            writer, cache, lambda line: None, [DebianSource("docs", "CC-BY-SA-3.0")]
        )
        writer.finish()
    assert records[0]["version"] == "1.0"
    line = json.loads((tmp_path / "corpus" / "ca.jsonl").read_text())
    assert line["text"] == "Un paràgraf traduït."
    assert line["licence"] == "CC-BY-SA-3.0"


def test_without_apt_the_error_names_the_other_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with CorpusWriter(tmp_path) as writer, pytest.raises(DataError, match="apt-get(.|\n)*pip source"):
        add_debian_packages(writer, tmp_path, lambda line: None)
