"""The command line: one command a stage.

Standard output holds the result and nothing else; progress goes to standard error. Exit status:
0 done, 1 failed, 2 wrong usage, 130 interrupted and resumable.
"""

import os
import sys
from collections.abc import Sequence

from sememe import __version__
from sememe.errors import SememeError, UsageError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    # Threads that spin while they wait would be counted as work, and starve other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if words == ["--version"]:
        sys.stdout.write(f"sememe {__version__}\n")
        return
    try:
        _run(words)
    except KeyboardInterrupt:
        sys.stderr.write("sememe: interrupted; run the same command to go on where it was\n")
        sys.exit(130)
    except UsageError as error:
        sys.stderr.write(f"sememe: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
    except (SememeError, OSError) as error:
        sys.stderr.write(f"sememe: {error}\n")
        sys.exit(1)


def _run(words: list[str]) -> None:
    import tyro

    from sememe.commands import COMMANDS

    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="sememe",
        description="Take a language model apart into units of meaning.",
        args=words,
    )
    command()
