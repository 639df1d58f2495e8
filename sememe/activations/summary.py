"""What a store holds, in figures."""

import math
from typing import Any

from sememe.activations.store import Activations


def summary(store: Activations) -> dict[str, Any]:
    """Return sites, rows, documents, left-out tokens and provenance as JSON-able figures.

    A site's ``norm`` is the root mean square norm of its activations, raw; ``scale`` is what makes
    it the square root of the width, and ``norm_limit`` is the norm beyond which tokens were left
    out as sinks. Of int8 there is also what it costs, as the manifest has it.
    """
    manifest = store.manifest
    sites = [
        {
            "site": site,
            "width": facts["width"],
            "dtype": store.dtype,
            "norm": math.sqrt(facts["width"]) / facts["scale"],
            "scale": facts["scale"],
            "norm_limit": facts["norm_limit"],
            **facts.get("quantisation", {}),
        }
        for site, facts in manifest["sites"].items()
    ]
    return {
        "path": str(store.path),
        "sites": sites,
        "rows": store.rows,
        "documents": len(store.read("document", 0, store.rows).unique()),
        "left_out": manifest["left_out"],
        "shards": store.shards,
        "bytes": sum(file["bytes"] for file in manifest["files"].values()),
        "context": manifest["config"]["context"],
        "held_out": manifest["config"]["held_out"],
        "made_from": manifest["made_from"],
        "hash": store.hash,
    }
