"""Record what a peer's package makes of its own dictionaries: ``python make.py PACKAGE``.

Run in an environment with that package; it needs nothing of sememe. The tests read recorded/.
"""

import sys
from importlib.metadata import version
from pathlib import Path

from peers import CASES, EXPECTED, build
from safetensors.torch import save_file

RECORDED = Path(__file__).parent / "recorded"
DISTRIBUTIONS = {
    "sae_lens": "sae-lens",
    "sparsify": "eai-sparsify",
    "dictionary_learning": "dictionary-learning",
}


def main() -> None:
    """Write every case of the package named on the command line."""
    package = sys.argv[1]
    for kind in CASES[package][1]:
        directory = RECORDED / package / kind
        expected = build(package, kind, directory)
        facts = {"package": f"{DISTRIBUTIONS[package]} {version(DISTRIBUTIONS[package])}"}
        save_file(expected, directory / EXPECTED, metadata=facts)


if __name__ == "__main__":
    main()
