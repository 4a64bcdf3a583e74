"""Leaves out of a preset what the strategy does not use that the environment has chosen in its place.

Only what the preset says: a key that somebody gave beside the strategy is his own, and refused where it does not fit.
"""

from collections.abc import Mapping
from typing import Any

Table = dict[str, Any]


def without_unused(run: Table, given: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """Return a preset's `[run]` without what is of no use to the kind of strategy that is `given`, and what that was.

    `given` is what the environment says of the run. Of a preset whose kind stands nothing is left out.
    """
    strategy, said = _table(run, "strategy"), _table(given, "strategy")
    kind = said.get("kind")
    if kind in (None, strategy.get("kind")):
        return run, []
    unused = []
    if kind != "replicas":
        unused.append(("strategy", "parts"))
    elif str(said.get("parts", strategy.get("parts", 1))) == "1":
        unused.append(("strategy", "common_tokens"))
    if kind != "adapters":
        unused.append(("model", "adapter"))
    elif _table(run, "inner").get("optimizer") == "muon":
        unused.append(("inner", "optimizer"))
    dropped = [(section, key) for section, key in unused if key in _table(run, section)]
    kept = {
        section: {key: value for key, value in table.items() if (section, key) not in dropped}
        if isinstance(table, dict)
        else table
        for section, table in run.items()
    }
    return kept, [f"{section}.{key}" for section, key in dropped]


def _table(of: Mapping[str, Any], key: str) -> Table:
    table = of.get(key)
    return table if isinstance(table, dict) else {}
