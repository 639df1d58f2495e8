"""Where text comes from: sources, sampling, tokenised corpora with the place of every document."""

from sememe.corpora.build import build_corpus
from sememe.corpora.corpus import Corpus, Windows
from sememe.corpora.sources import source_table

__all__ = ["Corpus", "Windows", "build_corpus", "source_table"]
