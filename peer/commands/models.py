"""The commands that turn text into a corpus, blocks into a model, and a model into scores and text."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from configs.errors import DataError, UsageError
from configs.outlets import read_target
from configs.text import printable
from peer.commands.beginning import check_fuse
from peer.commands.options import MODEL, Device, Invitation, Json, ModelDir, StateDir, check_model, home_of
from peer.commands.publishing import push_fused

if TYPE_CHECKING:
    from configs.corpus import CorpusInfo
    from peer.prepare.plan import Plan

DEFAULT_CONTEXT = 128  # tokens

app = typer.Typer()


@app.command(rich_help_panel=MODEL)
def prepare(
    sources: Annotated[
        list[Path], typer.Argument(help="Text, JSON lines, Parquet, tasks, or folders.", metavar="SOURCE...")
    ],
    out: Annotated[Path, typer.Option("--out", help="The corpus to write.", metavar="DIR")],
    vocab_size: Annotated[int | None, typer.Option(help="Of the tokenizer to train.", min=258, max=262_144)] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, or a model's folder, to use instead.", metavar="FILE|DIR")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Of JSON lines and Parquet.", metavar="NAME")] = None,
    domain_column: Annotated[str | None, typer.Option(help="That names each domain.", metavar="NAME")] = None,
    domains: Annotated[
        int | None, typer.Option(help="Find so many in the text, whatever its files.", min=1, max=64, metavar="K")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Sort the text into the domains of a run or corpus, in its tokens.", metavar="ADDR|DIR"),
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Tokens that each domain must fill; 128 or the run's.", min=8)
    ] = None,
    prompt_format: Annotated[
        str | None, typer.Option(help="Of tasks, with {input} in it; \\n is a line break.", metavar="TEXT")
    ] = None,
    chat_format: Annotated[
        Literal["chatml", "llama3", "mistral", "gemma", "plain"] | None,
        typer.Option(help="How the turns of tasks and chats are written."),
    ] = None,
    heldout_share: Annotated[float, typer.Option(help="Of the documents, never trained on.")] = 0.05,
    shard_tokens: Annotated[int, typer.Option(help="Of one data shard.", min=9)] = 4 << 20,
    private: Annotated[bool, typer.Option("--private", help="Never let this data leave the machine.")] = False,
    counts_noise: Annotated[
        float | None, typer.Option(help="On the token counts, which leave: times what one document can add.")
    ] = None,
    state_dir: StateDir = None,
    invitation: Invitation = None,
    as_json: Json = False,
) -> None:
    """Turn text into a corpus: tokenizer, domains, data shards.

    JSON lines with `input` and `target` are a task: only the target is learnt. `targets` (more right answers) and
    `options` (to choose from) are used by `shoal eval --metrics`. JSON lines with `messages` are chats: what the
    assistant says is learnt.
    """
    if chat_format is not None and prompt_format is not None:
        raise UsageError("--chat-format and --prompt-format both say how an input is written; leave one of them out")
    for source in sources:
        if not source.exists():
            raise DataError(f"there is nothing at {source}; give text files or folders of them")
    if like is not None and any(option is not None for option in (vocab_size, tokenizer, domains)):
        raise UsageError("--like takes tokens and domains from there: leave out --vocab-size, --tokenizer, --domains")
    from peer.commands import terminal
    from peer.prepare import engine as preparing
    from peer.prepare.documents import Reading
    from peer.prepare.plan import Plan

    plan = Plan(
        vocab_size,
        tokenizer,
        context_length=context_length or DEFAULT_CONTEXT,
        heldout_share=heldout_share,
        shard_tokens=shard_tokens,
        is_private=private,
        counts_noise=counts_noise,
        domains=domains,
        chat=chat_format,
    )
    if prompt_format is not None:
        plan = replace(plan, prompt=prompt_format.replace("\\n", "\n"))
    with TemporaryDirectory() as folder:
        if like is not None:
            from peer.visit.likeness import alike

            plan = alike(like, plan, Path(folder), context_length, home_of(state_dir, invitation))
        with terminal.progress() as report:
            corpus = preparing.prepare(sources, out, plan, Reading(text_column, domain_column), progress=report).info
    if as_json:
        print(corpus.model_dump_json(indent=1, exclude_defaults=True))
    else:
        _show_corpus(corpus, out, plan)
        print(_way_to_train(corpus, out, plan, like))


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
    data: Annotated[Path | None, typer.Option(help="A corpus with the run's tokenizer.", metavar="DIR")] = None,
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
    from peer.corpus.data import open_corpus

    tune_on = None if data is None else (open_corpus(data), tune_tokens)
    gathered = peer.visit.gather.Sources(sources, base, best, home_of(state_dir, invitation))
    peer.visit.gather.fuse_from(gathered, out, form, sub_model, tune_on)
    print(f"wrote {out}; {_way_to_ask(form, out)}")
    if target is not None:
        push_fused(out, target)


@app.command(name="eval", rich_help_panel=MODEL)
def evaluate(
    model: ModelDir,
    data: Annotated[Path, typer.Option("--data", help="A corpus made by `shoal prepare`.", metavar="DIR")],
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
    from peer.corpus.data import open_corpus

    corpus = open_corpus(data)
    if base is not None:
        check_model(base)
        if not metrics:
            raise UsageError("--base is scored by its answers; give --metrics, too")
    from peer.fused.on_corpus import answer_tasks, check_has_tasks, check_tokenizer, foretell

    check_tokenizer(model, data, corpus.info.tokenizer_sha256)
    if metrics:
        check_has_tasks(corpus)
    from peer.commands import terminal
    from peer.fused.routed import RoutedModel

    scored, of_base = {}, {}
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


def _show_corpus(corpus: "CorpusInfo", out: Path, plan: "Plan") -> None:
    """Print what each domain holds, and what tells it from the others if it was found in the text."""
    words: dict[str, list[str]] = {}
    if plan.domains is not None:
        from peer.corpus.data import open_corpus
        from peer.prepare.domains import typical_words

        words = typical_words(open_corpus(out))
    for domain in corpus.domains:
        size, held_out = f"{domain.tokens:,} tokens in {len(domain.shards)} shards", f"{domain.heldout.tokens:,}"
        if domain.task is not None:
            size, held_out = f"{domain.task.examples:,} examples, {size}", f"{held_out} examples"
        typical = f"; typical: {', '.join(words[domain.name])}" if words.get(domain.name) else ""
        print(f"{domain.name}: {size}, {held_out} held out{typical}")
        if domain.task is not None and domain.task.cut + domain.task.left_out:
            print(
                f"{domain.name}: {domain.task.cut:,} inputs lost their beginning and {domain.task.left_out:,} examples "
                f"were left out, to fit into {plan.context_length} tokens; --context-length takes longer ones"
            )


def _way_to_train(corpus: "CorpusInfo", out: Path, plan: "Plan", like: str | None) -> str:
    """Return the line that says how to train on a corpus."""
    from dht.addresses import is_address

    if like is not None and is_address(like):
        return f"train on it with: shoal join {like} --data {out}{' --private' if plan.is_private else ''}"
    is_task = corpus.task_format is not None
    if plan.tokenizer is not None and (plan.tokenizer / "config.json").is_file():
        config = f"{'answer' if is_task else 'small'} --init-from {plan.tokenizer}"
    else:
        config = "answer" if is_task else "tiny"
    return f"vocabulary of {corpus.vocab_size:,} tokens; train on it with: shoal start --config {config} --data {out}"


def _way_to_ask(form: str, out: Path) -> str:
    if form == "gguf":
        return f'try it with: llama-cli -m {out / "model.gguf"} -p "Once upon a time"'
    if form == "peft":
        return f"{out / 'README.md'} says how PEFT loads it"
    return f'try it with: shoal generate {out} "Once upon a time"'
