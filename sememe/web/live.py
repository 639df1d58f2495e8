"""The model behind the prompt page: loaded at the first prompt, then kept."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float

from sememe.activations.rules import TokenRules
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.models.language_model import LanguageModel
from sememe.models.reading import read
from sememe.web.prompt import MAX_TOKENS, PromptToken


@dataclass
class LivePrompt:
    """Answers a prompt with the features of each of its tokens, by the dictionary's own rules.

    A text longer than the windows of the training text is read window by window, as that was.
    """

    load: Callable[[], LanguageModel]
    """Loads the model that the dictionary was made for."""
    dictionary: Dictionary
    rules: TokenRules
    window: int
    """Tokens that the model read at once when the dictionary was trained."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever runs the model, which may be changed for one request."""

    @cached_property
    def model(self) -> LanguageModel:
        """The model, loaded when first asked for."""
        model = self.load()
        self.dictionary.check_fits(model_hash=model.hash)
        return model

    def __call__(self, text: str) -> Sequence[PromptToken]:
        """Return the tokens of ``text`` with their features; UsageError if it is too long."""
        ids = self.model.tokenizer.encode(text)
        if not 0 < len(ids) <= MAX_TOKENS:
            raise UsageError(f"text is {len(ids)} tokens long: expected 1 to {MAX_TOKENS}")
        site = self.dictionary.site
        parts = [ids[start : start + self.window] for start in range(0, len(ids), self.window)]
        rows = torch.cat([self._read(part, site) for part in parts])
        kept = self.rules.keep(torch.tensor(ids), {site: rows})
        with torch.no_grad():
            code = self.dictionary.encode(rows)
        tokens = []
        for place, token in enumerate(ids):
            pairs = zip(code.indices[place].tolist(), code.values[place].tolist(), strict=True)
            features = [(feature, value) for feature, value in pairs if value > 0]
            keep = bool(kept[place])
            tokens.append(PromptToken(token, features if keep else [], excluded=not keep))
        return tokens

    def token(self, text: str) -> int:
        """Return the token that ``text`` is; UsageError where it is several."""
        ids = self.model.tokenizer.encode(text)
        if len(ids) != 1:
            shown = ", ".join(repr(self.model.tokenizer.decode([token])) for token in ids)
            raise UsageError(f"next {text!r} is {len(ids)} tokens ({shown}): expected one")
        return ids[0]

    def on_token(self, features: Sequence[int], token: int) -> npt.NDArray[np.float32]:
        """Return what one unit of each feature adds to the logit of ``token``.

        By the direct path, against the mean over the vocabulary. UsageError where there is none.
        """
        width = self._mean_readout.shape[0]
        readout = (
            self.model.direct_path(torch.tensor([token]))(torch.eye(width))[:, 0]
            - self._mean_readout
        )
        return (self._directions(features) @ readout).numpy()

    @cached_property
    def _mean_readout(self) -> Float[torch.Tensor, " width"]:
        """What a unit of each number of the residual stream adds to the logits' mean."""
        rows = torch.eye(self.dictionary.W_dec.shape[1]).split(64)
        return torch.cat([self._logits(part).mean(1) for part in rows])

    def of_feature(self, feature: int) -> npt.NDArray[np.float32]:
        """Return what one unit of a feature adds to the logit of every token.

        By the direct path, against the median token, as in the atlas. UsageError where there is
        none.
        """
        effect = self._logits(self._directions([feature]))[0]
        return (effect - effect.median()).numpy()

    def _directions(self, features: Sequence[int]) -> Float[torch.Tensor, "n width"]:
        rows = self.dictionary.directions(torch.tensor(features)).float()
        return torch.nn.functional.normalize(rows, dim=1)

    @cached_property
    def _logits(
        self,
    ) -> Callable[[Float[torch.Tensor, "n width"]], Float[torch.Tensor, "n vocab"]]:
        """The direct path from the residual stream to the logits."""
        site = self.dictionary.site
        if not self.model.writes_to_stream(site):
            raise UsageError(f"site {site} has no direct path to the logits")
        return self.model.direct_path()

    def _read(self, ids: list[int], site: str) -> Float[torch.Tensor, "tokens width"]:
        bos = self.model.tokenizer.bos
        given = ids if bos is None else [bos, *ids]
        with self.lock:
            rows = read(self.model, torch.tensor([given]), [site])[site][0].float()
        return rows[len(given) - len(ids) :]
