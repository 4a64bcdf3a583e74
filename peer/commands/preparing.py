"""The command that turns text into a corpus."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from configs.errors import UsageError
from configs.outlets import is_url
from peer.commands.options import MODEL, Announce, Host, Invitation, Json, Port, StateDir, home_of

if TYPE_CHECKING:
    from configs.corpus import CorpusInfo
    from peer.prepare.plan import Plan
    from peer.sources.documents import Reading
    from peer.sources.listing import Listing

DEFAULT_CONTEXT = 128  # tokens

app = typer.Typer()


@app.command(rich_help_panel=MODEL)
def prepare(
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders, or URLs of them (s3://, hdfs://, hf://).", metavar="SOURCE...")
    ],
    out: Annotated[str | None, typer.Option("--out", help="The corpus to write.", metavar="DIR|URL")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look, and say what there is.")] = False,
    vocab_size: Annotated[int | None, typer.Option(help="Of the tokenizer to train.", min=258, max=262_144)] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, or a model's folder, to use instead.", metavar="FILE|DIR")
    ] = None,
    ext: Annotated[
        str | None, typer.Option(help="Take files with these endings as text, too: .py,.c", metavar="LIST")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of all text, if it is not found.", metavar="NAME")] = None,
    document: Annotated[
        Literal["line", "paragraph", "file"] | None, typer.Option(help="What is one document in a file of text.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option("--heldout", help="Never train on this.", metavar="FILE|DIR")
    ] = None,
    heldout_share: Annotated[float, typer.Option(help="Never train on so much, where no split says what.")] = 0.05,
    text_column: Annotated[str | None, typer.Option(help="That has the text; a.b is b in a.", metavar="NAME")] = None,
    domain_column: Annotated[str | None, typer.Option(help="That names each domain.", metavar="NAME")] = None,
    split_column: Annotated[str | None, typer.Option(help="That says what is held out.", metavar="NAME")] = None,
    input_column: Annotated[str | None, typer.Option(help="Of a task.", metavar="NAME")] = None,
    target_column: Annotated[str | None, typer.Option(help="Of a task.", metavar="NAME")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A task's input, from columns: '{context} {question}'.", metavar="TEXT")
    ] = None,
    prompt_format: Annotated[
        str | None, typer.Option(help="Of tasks, with {input} in it; \\n is a line break.", metavar="TEXT")
    ] = None,
    chat_format: Annotated[
        Literal["chatml", "llama3", "mistral", "gemma", "plain"] | None,
        typer.Option(help="How the turns of tasks and chats are written."),
    ] = None,
    keep: Annotated[Literal["start", "end"], typer.Option(help="Of an input that is too long.")] = "end",
    max_bad: Annotated[float, typer.Option(help="Of the text, that may be of no use.", min=0, max=1)] = 0.01,
    language: Annotated[
        list[str] | None, typer.Option("--language", help="Keep only text in this, such as en.", metavar="CODE")
    ] = None,
    min_characters: Annotated[int | None, typer.Option(help="Of a document that stays.", min=0)] = None,
    max_characters: Annotated[int | None, typer.Option(help="Of a document that stays.", min=1)] = None,
    deduplicate: Annotated[bool, typer.Option("--deduplicate", help="Of equal documents keep the first.")] = False,
    near_duplicates: Annotated[
        float | None, typer.Option(help="Of documents as similar as this, keep the first; try 0.7.", metavar="SHARE")
    ] = None,
    decontaminate: Annotated[
        list[str] | None, typer.Option("--decontaminate", help="Leave out what holds a part of this.", metavar="FILE")
    ] = None,
    domains: Annotated[
        int | None, typer.Option(help="Find so many in the text, whatever its files.", min=1, max=64, metavar="K")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Sort the text into the domains of a run or corpus, in its tokens.", metavar="ADDR|DIR|URL"),
    ] = None,
    together: Annotated[
        int | None,
        typer.Option(help="Find --domains with others' text, so many of you; no text moves.", min=2, metavar="N"),
    ] = None,
    together_with: Annotated[
        str | None, typer.Option(help="Find domains with who has said so; what it printed.", metavar="ADDR#WORD")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Tokens that each domain must fill; 128 or the run's.", min=8)
    ] = None,
    shard_tokens: Annotated[int, typer.Option(help="Of one data shard.", min=9)] = 4 << 20,
    private: Annotated[bool, typer.Option("--private", help="Never let this data leave the machine.")] = False,
    counts_noise: Annotated[
        float | None, typer.Option(help="On the token counts, which leave: times what one document can add.")
    ] = None,
    engine: Annotated[Literal["here", "spark"], typer.Option(help="Who does the work.")] = "here",
    master: Annotated[str | None, typer.Option(help="Of the Spark cluster.", metavar="URL")] = None,
    spark_conf: Annotated[
        list[str] | None, typer.Option("--spark-conf", help="A setting of Spark.", metavar="KEY=VALUE")
    ] = None,
    shared_dir: Annotated[
        str | None, typer.Option(help="That all of the cluster can write: results pass through it.", metavar="DIR")
    ] = None,
    host: Host = None,
    port: Port = None,
    announce: Announce = None,
    state_dir: StateDir = None,
    invitation: Invitation = None,
    as_json: Json = False,
) -> None:
    """Turn text into a corpus: tokenizer, domains, data shards.

    Records with `input` and `target` are a task: only the target is learnt. `targets` (more right answers) and
    `options` (to choose from) are used by `shoal eval --metrics`. Records with `messages` are chats: what the
    assistant says is learnt.
    """
    if chat_format is not None and prompt_format is not None:
        raise UsageError("--chat-format and --prompt-format both say how an input is written; leave one of them out")
    if out is None and not dry_run:
        raise UsageError("nothing says where to write the corpus; give --out DIR, or --dry-run only to look")
    if like is not None and any(option is not None for option in (vocab_size, tokenizer, domains)):
        raise UsageError("--like takes tokens and domains from there: leave out --vocab-size, --tokenizer, --domains")
    if (engine == "spark") != (master is not None):
        raise UsageError("--engine spark and --master go together; give both, as in --master spark://HOST:7077")
    if engine == "here" and (spark_conf or shared_dir is not None):
        raise UsageError("--spark-conf and --shared-dir are of a Spark cluster; add --engine spark --master URL")
    if sum(each is not None for each in (like, together, together_with)) > 1:
        raise UsageError("--like, --together and --together-with are three ways to agree on domains; choose one")
    if together_with is not None and any(each is not None for each in (vocab_size, tokenizer, domains, context_length)):
        raise UsageError(
            "--together-with takes tokens and domains from there: leave out --vocab-size, --tokenizer, --domains and "
            "--context-length"
        )
    from configs.corpus import DEFAULT_PROMPT
    from peer.commands import terminal
    from peer.prepare.cleaning import Cleaning
    from peer.prepare.delivery import Delivery
    from peer.prepare.engine import Engine, job_of
    from peer.prepare.plan import Plan
    from peer.sources.documents import Reading
    from peer.sources.listing import Listing

    plan = Plan(
        vocab_size,
        tokenizer,
        context_length=context_length or DEFAULT_CONTEXT,
        prompt=DEFAULT_PROMPT if prompt_format is None else prompt_format.replace("\\n", "\n"),
        chat=chat_format,
        keep=keep,
        heldout_share=heldout_share,
        max_bad=max_bad,
        cleaning=Cleaning(
            tuple(language or ()),
            min_characters,
            max_characters,
            tuple(decontaminate or ()),
            deduplicate,
            near_duplicates,
        ),
        shard_tokens=shard_tokens,
        is_private=private,
        counts_noise=counts_noise,
        domains=domains,
    )
    listing = Listing(
        extensions=tuple(each.strip() for each in (ext or "").split(",") if each.strip()),
        heldout=tuple(heldout or ()),
        unit=document,
        encoding=encoding,
    )
    how = Reading(text_column, domain_column, split_column, input_column, target_column, prompt)
    with TemporaryDirectory() as folder, ExitStack() as held:
        if like is not None:
            from peer.visit.likeness import alike

            plan = alike(like, plan, Path(folder), context_length, home_of(state_dir, invitation))
        elif together is not None or together_with is not None:
            from peer.visit import together as meeting

            place = meeting.Place(host or "0.0.0.0", port or 0, tuple(announce or ()))
            said = partial(typer.echo, err=True)
            if together is not None:
                plan = held.enter_context(meeting.host(plan, together, place, said))
            elif together_with is not None:
                plan = held.enter_context(meeting.join(together_with, plan, Path(folder), place, said))
        if out is None or dry_run:
            _look(sources, plan, how, listing, as_json)
            return
        workers = None
        if master is not None:
            from peer.prepare.spark import open_cluster

            sources = [_absolute(source) for source in sources]
            workers = held.enter_context(open_cluster(master, _settings(spark_conf), folder=shared_dir))
        delivery = Delivery(out) if is_url(out) else None
        with terminal.progress() as report:
            job = job_of(sources, plan, how, listing)
            if delivery is not None:
                prepared = delivery.prepare(job, report, workers)
            else:
                prepared = Engine(job, Path(out), report, workers).run()
    if as_json:
        info = prepared.info.model_dump(mode="json", exclude_defaults=True)
        print(json.dumps({**info, "skipped": prepared.skips.as_dict()}, indent=1, ensure_ascii=False))
    else:
        from peer.commands.prepared import show_corpus

        show_corpus(prepared, Path(out) if delivery is None else delivery.folder, plan)
        print(_way_to_train(prepared.info, out, plan, like))
    if delivery is not None:
        delivery.forget()


def _absolute(source: str) -> str:
    """Return a source as workers with another working directory find it."""
    return source if is_url(source) else str(Path(source).absolute())


def _settings(told: list[str] | None) -> dict[str, str]:
    """Read Spark's settings."""
    pairs = [each.partition("=") for each in told or ()]
    if wrong := [key for key, mark, _ in pairs if not mark or not key]:
        raise UsageError(f"--spark-conf {wrong[0]} is no setting; write KEY=VALUE, as in spark.executor.memory=2g")
    return {key: value for key, _, value in pairs}


def _look(sources: list[str], plan: "Plan", how: "Reading", listing: "Listing", as_json: bool) -> None:
    from peer.commands import terminal
    from peer.prepare.engine import job_of
    from peer.prepare.look import look

    with terminal.progress() as report:
        found = look(job_of(sources, plan, how, listing), report)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        from peer.commands.prepared import show_look

        show_look(found)
    if found.refusal is not None:
        raise found.refusal


def _way_to_train(corpus: "CorpusInfo", out: str, plan: "Plan", like: str | None) -> str:
    """Return the line that says how to train on a corpus."""
    from dht.addresses import is_address

    private = " --private" if plan.is_private else ""
    if plan.together is not None and plan.domains is not None and len(corpus.domains) < plan.domains:
        return (
            f"this text has next to nothing of {plan.domains - len(corpus.domains)} domains: let somebody found the "
            f"run whose text has all, and join with: shoal join ADDR --data {out}{private}"
        )
    if plan.together is not None:
        return (
            f"one of you founds the run with: shoal start --config tiny --data {out}{private}; "
            f"the others: shoal join ADDR --data {out}{private}"
        )
    if like is not None and is_address(like):
        return f"train on it with: shoal join {like} --data {out}{private}"
    is_task = corpus.task_format is not None
    if plan.tokenizer is not None and (plan.tokenizer / "config.json").is_file():
        config = f"{'answer' if is_task else 'small'} --init-from {plan.tokenizer}"
    else:
        config = "answer" if is_task else "tiny"
    return f"vocabulary of {corpus.vocab_size:,} tokens; train on it with: shoal start --config {config} --data {out}"
