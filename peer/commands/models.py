"""The commands that turn blocks into a model, and a model into scores and text."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from configs.errors import UsageError
from configs.outlets import read_target
from configs.text import printable
from peer.commands.beginning import check_fuse
from peer.commands.options import MODEL, Device, Invitation, Json, ModelDir, StateDir, check_model, home_of
from peer.commands.publishing import push_fused

app = typer.Typer()


@app.command(rich_help_panel=MODEL)
def fuse(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="A peer's address, state directories, or a published checkpoint.", metavar="ADDR|DIR|TARGET..."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The model to write.", metavar="DIR")],
    form: Annotated[
        Literal["routed", "mixtral", "llama", "peft", "gguf"], typer.Option("--format", help="What to make.")
    ] = "routed",
    sub_model: Annotated[
        str | None, typer.Option(help="Take only this one, such as branch.0 or adapter.1.", metavar="NAME")
    ] = None,
    tune_tokens: Annotated[
        int, typer.Option(help="Of --data, to train a fused Mixtral on: its gates choose token by token.", min=0)
    ] = 0,
    data: Annotated[str | None, typer.Option(help="A corpus with the run's tokenizer.", metavar="DIR|URL")] = None,
    base: Annotated[
        Path | None, typer.Option(help="A copy of the pretrained model that the run began with.", metavar="DIR")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Take the states with the best held-out loss that state directories keep.")
    ] = False,
    push: Annotated[
        str | None, typer.Option("--push", help="Then push it to a folder, s3://… or hf://….", metavar="TARGET")
    ] = None,
    state_dir: StateDir = None,
    invitation: Invitation = None,
) -> None:
    """Build the whole model from the blocks that a swarm holds."""
    if bool(tune_tokens) != (data is not None):
        raise UsageError("a tune needs both: give --tune-tokens and --data, or neither")
    check_fuse(sources, out)
    target = None if push is None else read_target(push)
    import peer.visit.gather
    from peer.corpus.remote import opened_corpus

    with ExitStack() as stack:
        tune_on = None if data is None else (stack.enter_context(opened_corpus(data, has_shards=True)), tune_tokens)
        gathered = peer.visit.gather.Sources(sources, base, best, home_of(state_dir, invitation))
        peer.visit.gather.fuse_from(gathered, out, form, sub_model, tune_on)
    print(f"wrote {out}; {_way_to_ask(form, out)}")
    if target is not None:
        push_fused(out, target)


@app.command(name="eval", rich_help_panel=MODEL)
def evaluate(
    model: ModelDir,
    data: Annotated[str, typer.Option("--data", help="A corpus made by `shoal prepare`.", metavar="DIR|URL")],
    max_tokens: Annotated[int | None, typer.Option(help="Of each domain.", min=1)] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Answer the examples of tasks, score the answers.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Examples of each task.", min=1)] = None,
    base: Annotated[
        Path | None, typer.Option(help="The model that it began with, for --metrics beside it.", metavar="DIR")
    ] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Score a model on the held-out part of each domain of a corpus; of tasks the targets count."""
    check_model(model)
    if base is not None:
        check_model(base)
        if not metrics:
            raise UsageError("--base is scored by its answers; give --metrics, too")
    from peer.corpus.remote import opened_corpus
    from peer.fused.on_corpus import answer_tasks, check_has_tasks, check_tokenizer, foretell

    scored, of_base = {}, {}
    with opened_corpus(data) as corpus:
        check_tokenizer(model, corpus)
        if metrics:
            check_has_tasks(corpus)
        from peer.commands import terminal
        from peer.fused.routed import RoutedModel

        with terminal.progress() as report:
            loaded = RoutedModel.load(model, device)
            result = foretell(loaded, corpus, max_tokens, limit, report)
            if metrics:
                scored = answer_tasks(loaded, corpus, limit, report)
                if base is not None:
                    of_base = answer_tasks(RoutedModel.load(base, device), corpus, limit, report, ", base")
    if as_json:
        import json

        found = {"tasks": {name: task.as_dict() for name, task in scored.items()}} if metrics else {}
        found |= {"base": {name: task.as_dict() for name, task in of_base.items()}} if of_base else {}
        print(json.dumps({**result.as_dict(), **found}, indent=1))
    else:
        terminal.show_evaluation(result)
        for name, task in scored.items():
            terminal.show_scores(name, task, of_base.get(name))


@app.command(rich_help_panel=MODEL)
def generate(
    model: ModelDir,
    prompt: Annotated[str, typer.Argument(help="The text to go on from, or a task's input.")],
    task: Annotated[
        bool | None, typer.Option("--task/--no-task", help="Ask as it was trained (default: if it was).")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show which sub-model spoke which part.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Of the answer.", min=1, max=1_000_000)] = 128,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.", min=0, max=10)] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from so many tokens; 0: all.", min=0)] = 50,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.", min=0)] = 0,
    no_repeat_ngram: Annotated[
        int, typer.Option(help="So many tokens in a row never come twice in an answer; 0: any may.", min=0, max=64)
    ] = 0,
    device: Device = "cpu",
) -> None:
    """Let a model go on from a prompt, or answer one if it was trained on a task."""
    check_model(model)
    from peer.commands import terminal
    from peer.fused.generate import Generation, task_prompt
    from peer.fused.routed import RoutedModel
    from peer.fused.sampling import Sampling

    sampling = Sampling(
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed, no_repeat_ngram=no_repeat_ngram
    )
    loaded = RoutedModel.load(model, device)
    is_task = loaded.task is not None if task is None else task
    generation = Generation(loaded, task_prompt(loaded, prompt) if is_task else prompt, sampling)
    if not is_task:
        print(printable(prompt), end="", flush=True)
    for piece in generation:
        print(printable(piece), end="", flush=True)
    print()
    if explain:
        print()
        terminal.show_segments(generation.segments())


def _way_to_ask(form: str, out: Path) -> str:
    if form == "gguf":
        return f'try it with: llama-cli -m {out / "model.gguf"} -p "Once upon a time"'
    if form == "peft":
        return f"{out / 'README.md'} says how PEFT loads it"
    return f'try it with: shoal generate {out} "Once upon a time"'
