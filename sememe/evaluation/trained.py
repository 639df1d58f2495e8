"""Controls that are trained: the dictionary's own config and budget, without what it should learn.

Each is a directory beside the evaluation and is made once; what was killed goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sememe.activations.gaussian import GaussianStream
from sememe.activations.harvest import harvest
from sememe.activations.rules import HarvestConfig, TokenRules
from sememe.activations.stream import Stream
from sememe.artefacts import fingerprint
from sememe.dictionaries.dictionary import Dictionary
from sememe.errors import UsageError
from sememe.evaluation.arms import Arm, Role
from sememe.evaluation.sections import NotApplicableError
from sememe.models.permuted import permuted
from sememe.progress import Progress
from sememe.training.config import TrainConfig
from sememe.training.loop import train
from sememe.training.streams import ActivationStream
from sememe.training.trainer import SAMPLE_ROWS


@dataclass(frozen=True)
class Training:
    """What trained controls are made of."""

    subject: Arm
    stream: ActivationStream
    """What the subject trained on."""
    out: Path
    """The directory of all controls."""
    progress: Progress

    def config(self) -> TrainConfig:
        """Return the subject's; NotApplicableError where its manifest does not say."""
        run = self.subject.dictionary.manifest.get("run")
        if not run:
            raise NotApplicableError("the dictionary does not say how it was trained")
        try:
            config = TrainConfig.from_json(run)
        except UsageError as error:
            raise NotApplicableError(f"it cannot be trained alike: {error}") from error
        if any(term.name == "kl" for term in config.objective):
            raise NotApplicableError("it was trained end to end, which controls are not")
        return config

    def arm(self, control: "Trained", dictionary: Dictionary) -> Arm:
        """Return the arm of a control on the subject's rows."""
        return replace(
            self.subject,
            name=control.name,
            what=control.what,
            role=control.role,
            dictionary=dictionary,
            key=str(dictionary.manifest["hash"]),
        )

    def place(self, control: "Trained") -> Path:
        """Return the directory of a control, and say that it is at work."""
        self.progress.say(f"control: {control.name}")
        return self.out / control.name.replace(" ", "-")


@dataclass(frozen=True)
class Trained:
    """A control, or a replicate, that is trained."""

    name: str
    what: str
    make: Callable[["Trained", Training], Arm]
    role: Role = "control"


def _frozen_decoder(control: Trained, training: Training) -> Arm:
    config = replace(
        training.config(), frozen_decoder=True, initialisation="random", resampling=None
    )
    out = training.place(control)
    return training.arm(control, train(training.stream, config, out, progress=training.progress))


def _another_seed(control: Trained, training: Training) -> Arm:
    config = training.config()
    config = replace(config, seed=config.seed + 1)
    out = training.place(control)
    return training.arm(control, train(training.stream, config, out, progress=training.progress))


def _gaussian(control: Trained, training: Training) -> Arm:
    config, out = training.config(), training.place(control)
    source = training.stream
    stream = GaussianStream(
        training.subject.once("control sample", lambda: source.sample(SAMPLE_ROWS)),
        training.subject.site,
        source.rows,
        {"gaussian_like": fingerprint(getattr(source, "made_from", None))},
    )
    return training.arm(control, train(stream, config, out, progress=training.progress))


def _random_model(control: Trained, training: Training) -> Arm:
    config, out = training.config(), training.place(control)
    subject, progress = training.subject, training.progress
    model, site = permuted(subject.model), subject.site
    made = subject.held_out.manifest["config"]
    settings = HarvestConfig(
        context=made["context"], dtype=made["dtype"], sink_multiple=made["sink_multiple"]
    )
    stored = harvest(
        model, subject.corpus, [site], out / "activations", config=settings, progress=progress
    )
    held_out = harvest(
        model,
        subject.corpus,
        [site],
        out / "activations-held-out",
        held_out=True,
        config=settings,
        rules=TokenRules.of(stored),
        progress=progress,
    )
    dictionary = train(Stream(stored, (site,)), config, out / "dictionary", progress=progress)
    arm = training.arm(control, dictionary)
    return replace(arm, model=model, held_out=held_out, shared={})


TRAINED = (
    Trained(
        "frozen decoder",
        "Trained like the dictionary, but its decoder rows stay the random directions that they "
        "begin as (2602.14111).",
        _frozen_decoder,
    ),
    Trained(
        "random model",
        "Trained like the dictionary, on activations of the model with the entries of each weight "
        "tensor permuted, and measured on that model (2501.17727).",
        _random_model,
    ),
    Trained(
        "gaussian",
        "Trained like the dictionary, on normal draws of the same mean and covariance as the "
        "site's activations, and measured on the activations.",
        _gaussian,
    ),
    Trained(
        "another seed",
        "The dictionary trained again from another seed: not a control but a replicate, which "
        "shows the luck of training.",
        _another_seed,
        role="replicate",
    ),
)
"""Those of the standard and full suites; making one raises NotApplicableError where none can be."""
