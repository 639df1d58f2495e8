"""Documents of a corpus's sources that the corpus did not take."""

import heapq

from sememe.corpora.corpus import Corpus
from sememe.corpora.documents import Document, identity, order
from sememe.corpora.inputs import resolve
from sememe.corpora.sources import SOURCES
from sememe.errors import SememeError
from sememe.models.tokenizer import Tokenizer
from sememe.progress import Progress


def fresh_documents(
    corpus: Corpus,
    source: str,
    tokenizer: Tokenizer,
    *,
    count: int,
    tokens: int,
    seed: int,
    progress: Progress,
) -> list[list[int]]:
    """Return the first ``tokens`` tokens of up to ``count`` documents that are not in ``corpus``.

    They may be near-copies of some that are. Empty where the corpus has no such source of the
    table, or made it from another version; where its package cannot be fetched, which is said.
    """
    if source not in {known.label for known in SOURCES}:
        return []
    content = resolve([source])[0]
    if corpus.manifest["made_from"]["sources"].get(source) != content.identity():
        return []
    taken = set(corpus.offset[corpus.source == corpus.sources.index(source)].tolist())

    def rank(document: Document) -> int:
        return order(seed, "fresh", source, document.offset)

    try:
        others = (each for each in content.reader(progress)() if each.offset not in taken)
        drawn = heapq.nsmallest(2 * count, others, key=rank)
    except SememeError as error:
        progress.say(f"no fresh text of {source}: {error}")
        return []
    texts = (content.clean(document.text) for document in drawn)
    distinct = list({identity(text): text for text in texts if text.strip()}.values())[:count]
    return [ids[:tokens] for ids in tokenizer.encode_batch(distinct)]
