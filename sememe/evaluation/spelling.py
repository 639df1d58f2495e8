"""The first-letter task (2409.14507): words, the letter the model says, and their activations.

A word is one token. Before it stand examples in the same form, of other words, so that a model that
can spell goes on with its first letter.

Axis names: words = those asked about, letters = those with enough words, width = of an activation.
"""

import random
import re
from collections import defaultdict
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sememe.evaluation.prompts import Prompt, answers, asked_activations, gradients, prompt_of
from sememe.evaluation.readings import kept
from sememe.evaluation.sections import NotApplicableError, SuiteName
from sememe.models.language_model import LanguageModel
from sememe.models.tokenizer import Tokenizer

EXAMPLES = 5
_WORD = re.compile(rb" [a-z]{3,}")
FIT: dict[SuiteName, int] = {"quick": 40, "standard": 40, "full": 100}
"""Words of a letter that probes are fitted to; half as many more are for testing."""
SPELT = 0.5
"""Share of the test words that the model must name the first letter of."""
LETTERS = 10
"""Letters that there must be, at least."""


class Spelling(NamedTuple):
    """Words, as many of each letter, and what the model makes of them."""

    words: list[str]
    letters: str
    label: Int64[Tensor, " words"]
    """Place of the word's letter."""
    test: Bool[Tensor, " words"]
    prompts: list[Prompt]
    among: Int64[Tensor, " letters"]
    """Tokens of the letters, as answers."""
    values: Float[Tensor, "words width"]
    """Activation of the word."""
    right: Bool[Tensor, " words"]
    """Whether the model says the letter; False for words that it was not asked about."""
    gradients: Float[Tensor, "words width"]
    """Of the letter's logit over the mean of the other letters', for test words."""


def spell(model: LanguageModel, site: str, suite: SuiteName, seed: int) -> Spelling:
    """Ask the model about test words, and read all.

    NotApplicableError where it has too few words of one token, or cannot spell them.
    """
    fit = FIT[suite]
    groups = words_by_letter(model.tokenizer, fit + fit // 2)
    letters = "".join(groups)
    if len(letters) < LETTERS:
        raise NotApplicableError(
            f"the tokenizer has words of one token, {fit + fit // 2} of a letter, for "
            f"{len(letters)} letters: at least {LETTERS} are needed"
        )
    generator = random.Random(seed)
    words, label, test = [], [], []
    for number, group in enumerate(groups.values()):
        words += generator.sample(group, len(group))
        label += [number] * len(group)
        test += [place >= fit for place in range(len(group))]
    prompts = [_prompt(model.tokenizer, word, words, generator) for word in words]
    labels, tests = torch.tensor(label), torch.tensor(test)
    among = torch.tensor([_answer(model.tokenizer, letter) for letter in letters])
    asked = tests.nonzero()[:, 0].tolist()
    own = [prompts[n] for n in asked]
    every = among.expand(len(own), -1)

    def ask() -> dict[str, Tensor]:
        said = answers(model, site, own, every).token
        return {"right": said == among[labels[asked]]}

    made_from = [model.hash, model.dtype, [prompt.ids for prompt in prompts]]
    right = torch.zeros(len(words), dtype=torch.bool)
    right[asked] = kept(["spelt", *made_from], ask)["right"]
    share = float(right[asked].double().mean())
    if share < SPELT:
        raise NotApplicableError(
            f"the model names the first letter of {share:.0%} of {len(asked)} words after "
            f"{EXAMPLES} examples: at least {SPELT:.0%} are needed to ask which features know it"
        )

    def read_all() -> dict[str, Tensor]:
        rest = -1 / (len(letters) - 1)
        weight = torch.full(every.shape, rest)
        weight[torch.arange(len(own)), labels[asked]] = 1
        return {
            "values": asked_activations(model, site, prompts),
            "gradients": gradients(model, site, own, every, weight),
        }

    read = kept(["letters", site, *made_from], read_all)
    gradient = torch.zeros_like(read["values"])
    gradient[asked] = read["gradients"]
    return Spelling(words, letters, labels, tests, prompts, among, read["values"], right, gradient)


def words_by_letter(tokenizer: Tokenizer, wanted: int) -> dict[str, list[str]]:
    """Return the first ``wanted`` words of one token of every letter that has so many.

    Words are of three lower-case letters or more, after a space; most tokenizers have the common
    ones first.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for token in tokenizer.bytes_of:
        if _WORD.fullmatch(token) and len(own := found[chr(token[1])]) < wanted:
            own.append(token.decode())
    return {letter: own for letter, own in sorted(found.items()) if len(own) == wanted}


def _answer(tokenizer: Tokenizer, letter: str) -> int:
    return tokenizer.encode(f" {letter.upper()}")[0]


def _prompt(tokenizer: Tokenizer, word: str, words: list[str], generator: random.Random) -> Prompt:
    after = " has the first letter:"
    chosen = [each for each in generator.sample(words, EXAMPLES + 1) if each != word][:EXAMPLES]
    shown = [f"{each}{after} {each[1].upper()}\n" for each in chosen]
    found = prompt_of(tokenizer, "".join(["\n", *shown]), word, after)
    if found is None:
        raise NotApplicableError(f"the tokenizer does not keep the word{word!r} apart in a prompt")
    return found
