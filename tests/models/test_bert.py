"""BERT against that of transformers, with the same weights."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from sememe.models.bert import Bert


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_layer_computes_what_it_does_in_transformers(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    theirs = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, dtype=dtype).eval()
    ours = Bert.load(tmp_path, dtype).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ids = torch.randint(50, (3, 16))
    there = torch.arange(16) < torch.tensor([[16], [9], [1]])
    seen = []
    for layer in ours.encoder["layer"]:
        layer.register_forward_hook(lambda _layer, _given, found: seen.append(found))
    with torch.no_grad():
        found = ours(ids, there)
        expected = theirs(
            input_ids=ids, attention_mask=there.long(), output_hidden_states=True
        ).hidden_states[1:]
    assert len(seen) == len(expected) == 3
    near = 1e-5 if dtype == torch.float32 else 0.1
    for ours_, theirs_ in zip([*seen, found], [*expected, expected[-1]], strict=True):
        torch.testing.assert_close(ours_[there], theirs_[there], rtol=near, atol=near)
