"""A permuted model keeps the numbers of each tensor, and nothing else."""

import torch

from sememe.models.language_model import LanguageModel
from sememe.models.permuted import permuted


def test_every_tensor_keeps_its_entries_in_another_order(tiny_llama: LanguageModel) -> None:
    before = {name: p.clone() for name, p in tiny_llama.module.named_parameters()}
    other = permuted(tiny_llama)
    found = dict(other.module.named_parameters())
    assert set(found) == set(before)
    for name, parameter in found.items():
        assert torch.equal(parameter.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(dict(tiny_llama.module.named_parameters())[name], before[name])
        assert before[name].unique().numel() == 1 or not torch.equal(parameter, before[name])
    ids = torch.arange(20)[None]
    assert not torch.allclose(other.logits(ids), tiny_llama.logits(ids))


def test_it_is_a_function_of_model_and_seed(tiny_llama: LanguageModel) -> None:
    one, same, other = (permuted(tiny_llama, seed=seed) for seed in (0, 0, 1))
    ids = torch.arange(20)[None]
    assert torch.equal(one.logits(ids), same.logits(ids))
    assert not torch.equal(one.logits(ids), other.logits(ids))
    assert one.hash == same.hash
    assert len({one.hash, other.hash, tiny_llama.hash}) == 3
