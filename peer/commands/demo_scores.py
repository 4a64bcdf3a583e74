"""What the demo ends with: every model scored on the same held-out text, and the table of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

EVALUATED_TOKENS = 8_000  # of each domain's held-out part
PROMPT = "def read("
SAMPLE_TOKENS = 60


def score_models(folder: Path, progress: Callable[[float], None]) -> dict[str, Any]:
    """Score every model in `folder` on the same held-out tokens, every token of them; add a sample of the fused one.

    `progress` is told the share that is done, from 0 to 1, every few windows; what it raises ends the work.
    """
    from peer.block.store import initial_state
    from peer.fused.evaluate import Evaluation, evaluate
    from peer.fused.fuse import fuse
    from peer.fused.generate import Generation
    from peer.fused.parts import Parts
    from peer.fused.routed import RoutedModel
    from peer.fused.sampling import Sampling
    from peer.member.entry import saved_spec
    from peer.member.own_text import built_in
    from peer.train.partition import COMMON, Strategy

    spec = saved_spec(folder / "founder")
    corpus = built_in(folder / "founder", spec) if spec is not None else None
    assert spec is not None and corpus is not None
    domains = corpus.info.domains
    heldout = {domain.name: corpus.heldout(domain)[:EVALUATED_TOKENS] for domain in domains}
    counts = {domain.name: corpus.counts(domain) for domain in domains}
    strategy = Strategy.of(spec.strategy, len(domains))
    untrained = Parts(spec, {COMMON: initial_state(spec, strategy).phi}, counts, corpus.tokenizer_json())
    fuse(untrained, folder / "untrained-model", "llama", COMMON)

    fused = RoutedModel.load(folder / "fused")
    # A token costs a pass through each sub-model; the three others have one. All domains' tokens are read.
    total = (3 + len(fused.models)) * sum(map(len, heldout.values()))
    passed = 0

    def score(model: RoutedModel | Path, passes: int = 1) -> Evaluation:
        nonlocal passed
        before = dict.fromkeys(heldout, 0)

        def report(domain: str, done: int, _: int) -> None:
            nonlocal passed
            passed += passes * (done - before[domain])
            before[domain] = done
            progress(passed / total)

        return evaluate(model, heldout, progress=report)

    result: dict[str, Any] = {name: _row(score(folder / f"{name}-model").losses) for name in ("untrained", "alone")}
    result["dense"] = _row(score(folder / "dense-model").losses)
    mixed = score(fused, len(fused.models))
    text = Generation(fused, PROMPT, Sampling(max_tokens=SAMPLE_TOKENS))
    return result | {
        "sub_models": {name: _row(losses) for name, losses in mixed.alone.items()},
        "fused": _row(mixed.losses),
        "sample": PROMPT + "".join(text),
    }


def is_won(result: Mapping[str, Any]) -> bool:
    """Whether the fused model beats the lone peer and every sub-model on the mean."""
    rivals = [result["alone"], *result["sub_models"].values()]
    return all(result["fused"]["mean"] < rival["mean"] for rival in rivals)


def print_result(console: Console, result: Mapping[str, Any], sample: str) -> None:
    """Print the table, the rounds, and what the fused model writes."""
    domains = list(result["fused"])
    tokens = result["tokens"]
    table = Table(title="perplexity on held-out text; lower is better")
    table.add_column("model")
    table.add_column("tokens", justify="right")
    for domain in domains:
        table.add_column(domain, justify="right")
    rows = [("untrained", "0", result["untrained"]), ("one peer alone", f"{tokens['alone']:,}", result["alone"])]
    rows += [(f"sub-model {name}", "", row) for name, row in result["sub_models"].items()]
    rows += [
        ("dense, all tokens", f"{tokens['dense']:,}", result["dense"]),
        ("fused", f"{tokens['fused']:,}", result["fused"]),
    ]
    for name, trained, row in rows:
        style = "bold" if name == "fused" else ""
        table.add_row(name, trained, *(f"{row[domain]:.1f}" for domain in domains), style=style)
    console.print(table)
    console.print(
        f"{result['rounds']} rounds; {result['rounds_after_founder_left']} after the founder left; "
        f"{result['rounds_after_kill_of_killed_peer']} by the killed peer after its return; {result['seconds']:.0f} s"
    )
    console.print(f"\na sample of the fused model:\n{sample}", markup=False, highlight=False)
    if not is_won(result):
        console.print("the fused model did not beat the lone peer and every sub-model", style="red")


def _row(losses: Mapping[str, float]) -> dict[str, float]:
    from peer.fused.evaluate import mean_perplexity

    row = {domain: round(mean_perplexity([loss]), 3) for domain, loss in losses.items()}
    return row | {"mean": round(mean_perplexity(losses.values()), 3)}
