"""The pages say what the code does: Python runs, commands parse, tables match, links lead on."""

import importlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro

from docs import tables
from sememe.cli import main
from sememe.commands import COMMANDS
from tests.prose import prose

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + PAGES
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(?:a href|img src)=\"([^\"]+)\"")
NUMBER = re.compile(r"^(N|PORT|INT|FLOAT)$")


def ids(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def blocks(path: Path, *languages: str) -> list[str]:
    return [body for _, language, body in FENCE.findall(path.read_text()) if language in languages]


def lines_of_shell(path: Path) -> Iterator[str]:
    """Yield the commands that a page shows, in blocks and in running text."""
    for block in blocks(path, "sh", "bash", "console", ""):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            yield line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
    for span in CODE_SPAN.findall(FENCE.sub("", path.read_text())):
        yield span.strip().removeprefix(".venv/bin/")


def words_of(line: str) -> list[str]:
    """Return the words of one command, up to where the shell would end it."""
    words = [word for word in shlex.split(line, comments=True) if word != "..."]
    end = next((n for n, word in enumerate(words) if word in ("|", "&&", ";", ">", "&")), None)
    return ["1" if NUMBER.match(word) else word for word in words[:end]]


def parse(words: list[str]) -> None:
    """Hold the arguments of ``sememe`` to the parser that the command line uses."""
    if (
        not words
        or words[0] in ("--help", "--version")
        or (len(words) == 1 and words[0] in COMMANDS)
    ):
        return
    if words[1:] == ["--help"]:
        assert words[0] in COMMANDS, words[0]
        return
    tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="sememe", args=words)


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_the_python_of_a_page_runs(
    path: Path,
    tmp_path: Path,
    tiny_directory: Path,
    small_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = blocks(path, "python", "py")
    if not code:
        return
    (tmp_path / "tiny").symlink_to(tiny_directory)
    prose(tmp_path / "text")
    shutil.copytree(small_run, tmp_path / "runs" / "small")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": path.stem}
    for number, block in enumerate(code, 1):
        exec(compile(block, f"{path.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("path", TEXTS, ids=ids(TEXTS))
def test_every_command_parses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in lines_of_shell(path):
        if not line.startswith(("sememe ", "make ")):
            continue
        program, *words = words_of(line)
        if program == "make":
            settings = [word for word in words if "=" in word]
            assert {word for word in words if "=" not in word} <= targets, line
            given = next((s for s in settings if s.startswith("DEMO_ARGS=")), "DEMO_ARGS=")
            words = ["map", "smollm2-135m", *shlex.split(given.partition("=")[2])]
        try:
            parse(words)
        except SystemExit:
            pytest.fail(f"{path.name} shows {line!r}:\n{capsys.readouterr().err}")


def test_a_command_that_does_not_parse_is_found() -> None:
    for words in (
        ["mop", "smollm2-135m"],
        ["map", "m", "--featers", "3"],
        ["map", "m", "--k", "a"],
    ):
        with pytest.raises(SystemExit):
            parse(words)
    assert words_of("sememe map m --k N ... > file  # so") == ["sememe", "map", "m", "--k", "1"]


@pytest.mark.parametrize("path", PAGES, ids=ids(PAGES))
def test_the_parts_from_the_code_are_up_to_date(path: Path) -> None:
    text = path.read_text()
    assert text == tables.filled(text), "run: python -m docs.tables"


def test_every_part_from_the_code_is_on_a_page() -> None:
    marks = re.findall(r"<!-- from the code: ([\w-]+) -->", "".join(p.read_text() for p in PAGES))
    assert sorted(marks) == sorted(tables.SECTIONS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_tables_of_options_are_what_help_says(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    plain = " ".join(re.sub("[│|╭╮╰╯─]", " ", told).split())
    options = tables.fields(COMMANDS[command])
    for option in options:
        assert option.meaning in plain, option.name
    flags = set(re.findall(r"^[│| ] +(--[a-z][a-z0-9-]*)", told, re.MULTILINE))
    assert flags == {f"--{o.name.replace('_', '-')}" for o in options if not o.positional}
    required = len(re.findall(r"\(required\)", plain))
    assert required == sum(option.default == "needed" for option in options)


def slugs(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as both mkdocs and forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s", "-", heading) for heading in plain}


@pytest.mark.parametrize("path", TEXTS, ids=ids(TEXTS))
def test_internal_links_resolve(path: Path) -> None:
    for one, other in LINK.findall(FENCE.sub("", path.read_text())):
        link = one or other
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = Path(os.path.normpath(path.parent / file)) if file else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in slugs(target), f"{path.name} links to {link}"


def test_every_page_is_in_the_navigation() -> None:
    settings = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^  - [^:]+: (\S+\.md)$", settings, re.MULTILINE)
    assert sorted(listed) == [path.name for path in PAGES]


def test_the_reference_names_what_there_is() -> None:
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    assert len(names) == len(set(names)) > 20
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
