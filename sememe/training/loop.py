"""Training from begin to end: files, checkpoints, progress."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sememe.artefacts import fingerprint, is_finished, lock, refuse_other
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import SememeError, UsageError
from sememe.progress import Progress
from sememe.training.checkpoints import load_checkpoint, remove_checkpoints, save_checkpoint
from sememe.training.config import TrainConfig
from sememe.training.devices import check_device
from sememe.training.history import History
from sememe.training.streams import ActivationStream
from sememe.training.trainer import Trainer, check_finite


def train(
    stream: ActivationStream,
    config: TrainConfig,
    out: Path,
    *,
    reads: tuple[str, ...] | None = None,
    writes: tuple[str, ...] | None = None,
    device: str = "cpu",
    made_from: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    look: Callable[[Dictionary, int], None] | None = None,
) -> Dictionary:
    """Train a dictionary on ``stream`` and write it to ``out``; return it.

    It encodes the sites ``reads``, by default all of the stream's, and reconstructs ``writes``, by
    default what it reads: one site makes an autoencoder, another one written a transcoder, several
    a crosscoder. Killed and called again with the same arguments it goes on from its last
    checkpoint and ends with the same bytes; once finished it returns what is there. ``made_from``
    names the inputs by hash, by default those that the stream names. It trains on ``device``
    (``cuda`` sums in another order than ``cpu``) and returns a dictionary on the CPU.

    Figures are appended to ``history.jsonl`` in ``out`` as it goes, and ``look``, which must change
    nothing, is shown the dictionary on its device and the activations seen after every checkpoint.

    Raises UsageError for arguments that cannot work (a device that is not there too), SememeError
    for activations that are not finite or all alike and for training that diverges.
    """
    progress, look = progress or Progress(), look or (lambda *_: None)
    check_device(device)
    reads = reads or stream.sites
    writes = writes or reads
    inputs = dict(getattr(stream, "made_from", {}) if made_from is None else made_from)
    settings = {n: v for n, v in config.to_json().items() if n != "checkpoint_every"}
    run_key = {
        **settings,
        "reads": list(reads),
        "writes": list(writes),
        "sites": list(stream.sites),
        "widths": list(stream.widths),
        "rows": stream.rows,
        "scales": list(stream.scales),
        "order": getattr(stream, "order", None),
        "made_from": fingerprint(inputs),
    }
    if is_finished(out):
        found = Dictionary.load(out)
        refuse_other(out, run_key, found.manifest["run"])
        return found
    lock(out)
    if stream.rows < 1:
        raise UsageError("there are no activations to train on (0 rows): harvest more text")
    trainer = Trainer(stream, config, reads, writes, device)
    if saved := load_checkpoint(out, run_key):
        trainer.restore(*saved)
        look(trainer.dictionary, trainer.step * config.batch)
    steps = trainer.steps
    history = History(out, steps, trainer.step)
    progress.start("train", steps * config.batch, "activations", trainer.step * config.batch)
    for rows in stream.batches(config.batch, config.passes, config.seed, trainer.step):
        check_finite(rows, f"batch {trainer.step}", stream)
        saving = (trainer.step + 1) % config.checkpoint_every == 0
        try:
            trainer.advance(rows)
            if saving or trainer.step == steps:
                trainer.check_weights()
        except FloatingPointError as error:
            raise SememeError(
                f"training diverged at step {trainer.step} ({error}); the last good checkpoint is "
                f"kept in {out}. Lower learning_rate (now {config.rate():g}) and give another --out"
            ) from None
        figures = trainer.figures()
        progress.advance(len(rows), **figures)
        history.add(
            trainer.step, trainer.step * config.batch, {**figures, "loss": trainer.mean_loss}
        )
        if saving and trainer.step < steps:
            history.keep()
            state = {**trainer.state(), "run": run_key}
            save_checkpoint(out, trainer.step, trainer.tensors(), state)
            look(trainer.dictionary, trainer.step * config.batch)
    dictionary, figures = trainer.dictionary.cpu(), trainer.figures()
    if config.norms == "free":
        dictionary.unit_rows()
    dictionary.save(out, made_from=inputs, run=run_key, figures=figures, steps=steps)
    remove_checkpoints(out)
    progress.finish(", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    return dictionary
