"""SAELens's own trainers in the worlds of ``sememe study synthetic``, held to the same figures.

    python -m benchmarks.synthetic_peers --out DIR [--world small] [--seeds 3] [--samples N]
        [--learning-rate 3e-4] [--peers standard topk batchtopk matryoshka] [--json]

Needs sae-lens beside sememe's own dependencies. Both see the same samples in the same order, scaled
to the same norm. SAELens's ``standard`` has a penalty, which is searched for as the study does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from benchmarks import command
from sememe.artefacts import begin, read_json, write_json
from sememe.dictionaries import Dictionary, DictionaryConfig, JumpReLU, ReLU, TopK
from sememe.errors import SememeError
from sememe.evaluation.ground_truth import ground_truth
from sememe.evaluation.worlds import SITE, World
from sememe.studies.synthetic import (
    LATENTS,
    REPORTED,
    SEARCH_SEED,
    SyntheticConfig,
    measured,
    search,
    summary,
)

Peer = Literal["standard", "topk", "batchtopk", "matryoshka"]
MATRYOSHKA = (1 / 32, 1 / 8, 1 / 2, 1)
"""Prefixes that SAELens's study of SynthSAEBench took, as shares of the latents."""


def trainer(
    peer: str, world: World, latents: int, l0: int, penalty: float, settings: dict[str, Any]
) -> Any:  # noqa: ANN401 - SAELens may not be installed
    """Return SAELens's trainer for one of its architectures."""
    try:
        import sae_lens
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer
    except ImportError as error:
        raise SememeError(
            f"sae-lens is needed for this comparison ({error}): pip install sae-lens"
        ) from error
    shape = {"d_in": world.widths[0], "d_sae": latents, "device": "cpu", "dtype": "float32"}
    shape["normalize_activations"] = "none"
    made = {
        "standard": lambda: sae_lens.StandardTrainingSAE(
            sae_lens.StandardTrainingSAEConfig(l1_coefficient=penalty, **shape)
        ),
        "topk": lambda: sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(k=l0, **shape)),
        "batchtopk": lambda: sae_lens.BatchTopKTrainingSAE(
            sae_lens.BatchTopKTrainingSAEConfig(k=float(l0), **shape)
        ),
        "matryoshka": lambda: sae_lens.MatryoshkaBatchTopKTrainingSAE(
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(
                k=float(l0),
                matryoshka_widths=[round(share * latents) for share in MATRYOSHKA],
                **shape,
            )
        ),
    }[peer]()
    steps = world.rows // settings["batch"]
    config = SAETrainerConfig(
        total_training_samples=world.rows,
        train_batch_size_samples=settings["batch"],
        lr=settings["learning_rate"],
        lr_end=0.0,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 5,
        dead_feature_window=steps // 3,
    )
    return SAETrainer(config, made, data_provider=iter(()))


def trained(
    peer: str,
    world: World,
    seed: int,
    latents: int,
    l0: int,
    penalty: float,
    settings: dict[str, Any],
) -> Dictionary:
    """Return what SAELens trains, as a dictionary of ours that encodes as its own does."""
    torch.manual_seed(seed)
    peer_trainer = trainer(peer, world, latents, l0, penalty, settings)
    for rows in world.batches(settings["batch"], 1, seed):
        peer_trainer.step(rows * world.scale)
        peer_trainer.n_training_steps += 1
    return converted(peer_trainer.sae, world, peer, l0)


@torch.no_grad()
def converted(sae: Any, world: World, peer: str, l0: int) -> Dictionary:  # noqa: ANN401
    """Return a dictionary with SAELens's weights; decoder norms move to the encoder."""
    norms = sae.W_dec.norm(dim=1)
    # BatchTopK's threshold is one of scores times norms, as ours become.
    kind = JumpReLU() if hasattr(sae, "topk_threshold") else ReLU()
    if peer == "topk":
        kind = TopK(l0)
    config = DictionaryConfig(
        reads=(SITE,),
        writes=(SITE,),
        read_widths=world.widths,
        write_widths=world.widths,
        features=len(sae.W_dec),
        nonlinearity=kind,
        centre="tied" if sae.cfg.apply_b_dec_to_input else "none",
    )
    made = Dictionary(config, world.scales, world.scales)
    made.W_enc.copy_(sae.W_enc.T * norms[:, None])
    made.b_enc.copy_(sae.b_enc * norms)
    made.W_dec.copy_(sae.W_dec / norms[:, None])
    made.b_dec.copy_(sae.b_dec)
    if isinstance(kind, JumpReLU):
        made.learnt["threshold"].fill_(float(sae.topk_threshold))
    return made


@dataclass(frozen=True)
class Settings:
    """What to compare in."""

    out: Path
    """Directory of the results."""
    world: str = "small"
    """A world of the study."""
    peers: tuple[Peer, ...] = get_args(Peer)
    """Architectures to train."""
    seeds: int = 3
    """Runs of each."""
    samples: int = 1_000_000
    """Samples that a run is trained on."""
    l0: int | None = None
    """Features active on one sample; by default as many as a perfect dictionary has."""
    batch: int = 256
    """Samples a step."""
    learning_rate: float = 3e-4
    """Learning rate of all."""
    json: bool = False
    """Print one JSON object."""


def compare(given: Settings) -> dict[str, Any]:
    """Train and evaluate; return a row for each."""
    config = SyntheticConfig(
        world=given.world, samples=given.samples, l0=given.l0, batch=given.batch
    )
    settings = {"batch": given.batch, "learning_rate": given.learning_rate}
    begin(given.out, {**settings, "world": given.world, "samples": given.samples, "l0": given.l0})
    latents, l0 = LATENTS[given.world], config.wanted()
    rows = []
    for peer in given.peers:
        penalty = penalty_of(peer, config, latents, l0, settings, given.out)

        def fit(world: World, seed: int, peer: str = peer, penalty: float = penalty) -> Dictionary:
            return trained(peer, world, seed, latents, l0, penalty, settings)

        results = [result(config, given.out, peer, seed, fit) for seed in range(given.seeds)]
        rows.append({"recipe": f"saelens {peer}", **summary(results)})
    return {"world": given.world, "rows": rows}


def result(
    config: SyntheticConfig,
    out: Path,
    peer: str,
    seed: int,
    fit: Callable[[World, int], Dictionary],
) -> dict[str, float]:
    """Return the figures of a run, which is done once."""
    path = out / f"{peer}-{seed}.json"
    if not path.exists():
        write_json(path, measured(config, seed, fit))
    return read_json(path)


def penalty_of(
    peer: str,
    config: SyntheticConfig,
    latents: int,
    l0: int,
    settings: dict[str, Any],
    out: Path,
) -> float:
    """Return the penalty that gives the wanted L0, where the peer has one."""
    if peer != "standard":
        return 0.0
    path = out / f"{peer}-penalty.json"
    if not path.exists():
        world = config.make(SEARCH_SEED)

        def reached(penalty: float) -> float:
            made = trained(peer, world, SEARCH_SEED, latents, l0, penalty, settings)
            return ground_truth(made, world.directions, world.held_out(4096, SEARCH_SEED))["l0"]

        write_json(path, search(reached, 2.0, float(l0)))
    return read_json(path)["penalty"]


if __name__ == "__main__":
    command.run(Settings, compare, __doc__, columns=("recipe", *REPORTED, "us_per_sample"))
