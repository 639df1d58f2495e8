"""The parts of the pages that come from the code; ``python -m docs.tables`` writes them anew.

Each stands between ``<!-- from the code: NAME -->`` and ``<!-- end -->``. A test compares them with
what this module makes, so that the pages cannot say what the code does not.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from tyro.conf import UseAppendAction

from sememe.activations.rules import HarvestConfig
from sememe.commands import COMMANDS
from sememe.commands.activations import STORES
from sememe.commands.studies import STUDIES
from sememe.corpora.sources import SOURCES, source_table
from sememe.evaluation.controls import WRITTEN
from sememe.evaluation.splicing import EvaluateConfig
from sememe.evaluation.suite import SECTIONS as EVALUATION
from sememe.evaluation.trained import TRAINED
from sememe.models.packaged import PACKAGED
from sememe.training.config import TrainConfig

PAGES = Path(__file__).parent
_SECTION = re.compile(r"(<!-- from the code: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Field(NamedTuple):
    """One field of a dataclass: a setting, or an option of a command."""

    name: str
    values: str
    """What it takes; empty for a switch."""
    positional: bool
    default: str
    meaning: str


def fields(owner: Any) -> list[Field]:  # noqa: ANN401 - any dataclass
    """Return the fields of a dataclass, positional ones first."""
    meanings = _meanings(owner)
    hints = get_type_hints(owner, include_extras=True)
    found = [
        Field(
            field.name,
            _values(hints[field.name]),
            get_origin(hints[field.name]) is Annotated and not _repeated(hints[field.name]),
            _default(field),
            meanings[field.name],
        )
        for field in dataclasses.fields(owner)
    ]
    return sorted(found, key=lambda field: not field.positional)


def _meanings(owner: type) -> dict[str, str]:
    """Return the text under each field, in the class and those it inherits from."""
    found: dict[str, str] = {}
    for part in owner.__mro__[-2::-1]:
        tree = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for line, below in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[line.target.id] = " ".join(str(below.value.value).split())
    return found


def _values(hint: Any) -> str:  # noqa: ANN401 - any annotation
    """Return what an option takes, in the words of ``--help``."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _values(get_args(parts[0])[0] if _repeated(hint) else parts[0])
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin in (Union, types.UnionType):
        return _values(next(part for part in parts if part is not types.NoneType))
    if origin is tuple:
        return f"{_values(parts[0])} ..."
    return "" if hint is bool else str(hint.__name__).upper()


def _repeated(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    """Whether an option takes one value, and is given again for several."""
    return UseAppendAction in getattr(hint, "__metadata__", ())


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is dataclasses.MISSING:
        return "needed"
    if field.default is None or field.default == ():
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return f"`{field.default}`"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def commands() -> str:
    """Every command with its options."""
    parts = []
    groups = {"activations": STORES, "study": STUDIES}
    for name, command in {
        f"{group} {name}".strip(): command
        for group, listed in {"": COMMANDS, **groups}.items()
        for name, command in listed.items()
        if name not in groups
    }.items():
        options = fields(command)
        given = "".join(f" {_argument(option)}" for option in options if option.default == "needed")
        rows = [[f"`{_argument(option)}`", option.meaning, option.default] for option in options]
        about = " ".join((inspect.getdoc(command) or "").split())
        parts.append(
            f"## {name}\n\n{about}\n\n```sh\nsememe {name}{given}\n```\n\n"
            + table(["option", "meaning", "default"], rows)
        )
    return "\n".join(parts)


def _argument(option: Field) -> str:
    if option.positional:
        return option.name.upper()
    return f"--{option.name.replace('_', '-')} {option.values}".rstrip()


def settings(owner: type) -> Callable[[], str]:
    """Return a function that makes the table of a configuration's fields."""
    return lambda: table(
        ["field", "meaning", "default"],
        [[f"`{field.name}`", field.meaning, field.default or "`None`"] for field in fields(owner)],
    )


def sources() -> str:
    """Every source of text."""
    shares = sum(row["share"] for row in source_table())
    rows = [
        [
            f"`{row['label']}`",
            row["covers"],
            row["licence"],
            row["package"],
            f"{row['megabytes']:g}",
            f"{row['million_tokens']:g}",
            f"{100 * row['share'] / shares:.1f}%" if row["default"] else "",
        ]
        for row in source_table()
    ]
    packages = {source.package for source in SOURCES if source.share and source.package}
    total = sum(package.megabytes for package in packages)
    header = ["source", "covers", "licence", "package", "MB", "million tokens", "default share"]
    return (
        f"The default set fetches {len(packages)} packages, {total:.0f} MB in all, once.\n\n"
        + table(header, rows)
    )


def models() -> str:
    """Every model that a package brings."""
    rows = [
        [
            f"`{name}`",
            model.licence,
            f"<{model.terms.address}>, `--accept-terms`" if model.terms else "",
            f"{model.megabytes} MB",
            ", ".join(f"`{requirement}`" for requirement in model.requirements),
        ]
        for name, model in PACKAGED.items()
    ]
    return table(["model", "licence", "terms to accept", "fetched", "from PyPI"], rows)


def derived() -> str:
    """What the trainer derives when it is not told."""
    config = TrainConfig()
    rows = [
        [f"{count:,}", f"{config.rate():g}", f"{config.dead_after(count):,}"]
        for count in (100_000, 1_000_000, 100_000_000)
    ]
    return table(["activations in a pass", "learning rate", "dead after silence of"], rows)


def metrics() -> str:
    """Every metric of the evaluation, by section."""
    parts = []
    for section in EVALUATION:
        rows = [
            [
                f"`{metric.name}`",
                metric.what,
                metric.better,
                metric.units,
                ", ".join(metric.against),
            ]
            for metric in section.metrics
        ]
        header = ["metric", "what it is", "better", "drawn", "held to"]
        suites = "" if "quick" in section.suites else "In the standard and the full suite. "
        above = f"{suites}{section.caution}".strip()
        title = f"### {section.title}\n\n" + (f"{above}\n\n" if above else "")
        parts.append(title + table(header, rows))
    return "\n".join(parts)


def controls() -> str:
    """Every control."""
    rows = [[control.name, control.what] for control in (*WRITTEN, *TRAINED)]
    return table(["control", "what it is"], rows).replace("{k}", "k")


SECTIONS: dict[str, Callable[[], str]] = {
    "metrics": metrics,
    "controls": controls,
    "commands": commands,
    "sources": sources,
    "models": models,
    "derived": derived,
    "train-config": settings(TrainConfig),
    "harvest-config": settings(HarvestConfig),
    "evaluate-config": settings(EvaluateConfig),
}
"""What each part of a page is made by."""


def filled(page: str) -> str:
    """Return the text of a page with its parts made anew."""
    return _SECTION.sub(lambda found: f"{found[1]}\n{SECTIONS[found[2]]()}\n{found[3]}", page)


def main() -> None:
    """Write the parts of every page anew."""
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
