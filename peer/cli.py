"""The command line. Each command checks what it can at once and only then imports what its work needs.

Commands that talk to a running daemon never import torch, transformers or hivemind. Results go to stdout, logs and
progress to stderr. `main` turns every `ShoalError` into one line; anything else is a bug and keeps its traceback.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from configs.errors import ConfigError, DataError, ShoalError, UsageError
from peer import __version__, local, logs
from peer.options import (
    Announce,
    Config,
    Data,
    Device,
    Devices,
    DownMbit,
    Host,
    Json,
    LogLevel,
    MicroBatch,
    ModelDir,
    Port,
    Private,
    StateDir,
    StatusHost,
    StatusPort,
    SubModel,
    Tensorboard,
    Threads,
    UpMbit,
)

app = typer.Typer(
    help="Train one language model on many machines, with nobody in charge. Begin with: shoal demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
PEER, SWARM, MODEL = "This machine's peer", "Look and try", "Data and models"

_UserMistake: type[Any] = typer.BadParameter.__bases__[0]  # click's UsageError, whichever click typer brings
RUN_FILE = "run.json"  # of a state directory that has been in a run


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    logs.configure("warning")
    if version:
        print(f"shoal {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(rich_help_panel=SWARM)
def demo(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Run a swarm on this machine, fuse its model and score it: a first look, in minutes."""
    import peer.demo

    raise typer.Exit(peer.demo.run(as_json=as_json, state_dir=state_dir))


@app.command(rich_help_panel=PEER)
def start(
    config: Config = None,
    data: Data = None,
    private: Private = None,
    state_dir: StateDir = None,
    host: Host = None,
    port: Port = None,
    announce: Announce = None,
    status_host: StatusHost = None,
    status_port: StatusPort = None,
    up_mbit: UpMbit = None,
    down_mbit: DownMbit = None,
    device: Devices = None,
    threads: Threads = None,
    micro_batch: MicroBatch = None,
    sub_model: SubModel = None,
    tensorboard: Tensorboard = None,
    log_level: LogLevel = None,
) -> None:
    """Found a run, or go on with the one in the state directory; prints the line that others join by."""
    flags = {name: value for name, value in locals().items() if name not in ("config", "device")}
    _run_daemon(config, devices=device, **flags)


@app.command(rich_help_panel=PEER)
def join(
    addresses: Annotated[list[str], typer.Argument(help="Of any peer of the run.", metavar="ADDR...")],
    run: Annotated[str | None, typer.Option("--run", help="Join only this run.", metavar="ID")] = None,
    config: Config = None,
    data: Data = None,
    private: Private = None,
    state_dir: StateDir = None,
    host: Host = None,
    port: Port = None,
    announce: Announce = None,
    status_host: StatusHost = None,
    status_port: StatusPort = None,
    up_mbit: UpMbit = None,
    down_mbit: DownMbit = None,
    device: Devices = None,
    threads: Threads = None,
    micro_batch: MicroBatch = None,
    sub_model: SubModel = None,
    tensorboard: Tensorboard = None,
    log_level: LogLevel = None,
) -> None:
    """Join a run by the address of any of its peers."""
    flags = {name: value for name, value in locals().items() if name not in ("addresses", "run", "config", "device")}
    if run is not None and (len(run) != 32 or not set(run) <= set("0123456789abcdef")):
        raise UsageError(
            f"'{run}' is no run id: it has 32 hexadecimal digits, as in the line that `shoal status` shows"
        )
    _run_daemon(config, initial_peers=addresses, run_id=run, devices=device, **flags)


@app.command(rich_help_panel=PEER)
def status(
    where: Annotated[str | None, typer.Argument(help="A state directory or a URL.", metavar="[DIR|URL]")] = None,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again each second.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Show what a daemon and its swarm are doing."""
    place = where or _place(state_dir)
    if as_json and not watch:
        print(local.fetch_status(place).model_dump_json(indent=1))
        return
    snapshot = None if watch else local.fetch_status(place)
    from peer import terminal  # rich: only once there is something to draw

    if snapshot is None:
        terminal.watch_status(place, as_json=as_json)
    else:
        terminal.show_status(snapshot)


@app.command(rich_help_panel=PEER)
def leave(state_dir: StateDir = None) -> None:
    """Leave the run: hand over, save, and end this machine's daemon."""
    place = _place(state_dir)
    local.post_action(place, "leave")
    print("leaving: handing over and saving (Ctrl-C ends only the wait)", flush=True)
    local.wait_until_gone(place)
    print(f"left; {place} keeps the peer's identity and state, `shoal start` goes on with it")


@app.command(rich_help_panel=PEER)
def pause(state_dir: StateDir = None) -> None:
    """Stop training until `shoal resume`; the peer stays in the swarm and serves."""
    local.post_action(_place(state_dir), "pause")
    print("paused; go on with: shoal resume")


@app.command(rich_help_panel=PEER)
def resume(state_dir: StateDir = None) -> None:
    """Train again after `shoal pause`."""
    local.post_action(_place(state_dir), "resume")
    print("training again")


@app.command(rich_help_panel=MODEL)
def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Text, JSON lines, Parquet, or folders.", metavar="SOURCE...")],
    out: Annotated[Path, typer.Option("--out", help="The corpus to write.", metavar="DIR")],
    vocab_size: Annotated[int | None, typer.Option(help="Of the tokenizer to train.", min=258, max=262_144)] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.json to use instead.", metavar="FILE")] = None,
    text_column: Annotated[str, typer.Option(help="Of JSON lines and Parquet.", metavar="NAME")] = "text",
    domain_column: Annotated[str | None, typer.Option(help="That names each domain.", metavar="NAME")] = None,
    context_length: Annotated[int, typer.Option(help="Tokens that each domain must fill.", min=8)] = 128,
    heldout_share: Annotated[float, typer.Option(help="Of the documents, never trained on.")] = 0.05,
    shard_tokens: Annotated[int, typer.Option(help="Of one data shard.", min=9)] = 4 << 20,
    private: Annotated[bool, typer.Option("--private", help="Never let this data leave the machine.")] = False,
    as_json: Json = False,
) -> None:
    """Turn text into a corpus: tokenizer, domains, data shards."""
    for source in sources:
        if not source.exists():
            raise DataError(f"there is nothing at {source}; give text files or folders of them")
    from peer import terminal
    from peer.train import prepare as preparing

    with terminal.progress() as report:
        corpus = preparing.prepare(
            sources,
            out,
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            text_column=text_column,
            domain_column=domain_column,
            context_length=context_length,
            heldout_share=heldout_share,
            shard_tokens=shard_tokens,
            private=private,
            progress=report,
        )
    if as_json:
        print(corpus.model_dump_json(indent=1))
        return
    for domain in corpus.domains:
        size, held_out = f"{domain.tokens:,} tokens in {len(domain.shards)} shards", f"{domain.heldout.tokens:,}"
        print(f"{domain.name}: {size}, {held_out} held out")
    print(f"vocabulary of {corpus.vocab_size:,} tokens; train on it with: shoal start --config tiny --data {out}")


@app.command(rich_help_panel=MODEL)
def fuse(
    sources: Annotated[
        list[str], typer.Argument(help="A peer's address, or state directories.", metavar="ADDR|DIR...")
    ],
    out: Annotated[Path, typer.Option("--out", help="The model to write.", metavar="DIR")],
    form: Annotated[Literal["routed", "mixtral", "llama"], typer.Option("--format", help="What to make.")] = "routed",
) -> None:
    """Build the whole model from the blocks that a swarm holds."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and is not empty; choose another directory")
    for source in sources:
        if not source.startswith("/ip") and not source.startswith("/dns") and not Path(source).is_dir():
            raise UsageError(
                f"'{source}' is neither a directory nor an address such as /ip4/203.0.113.7/tcp/4000/p2p/…"
            )
    import peer.gather

    peer.gather.fuse_from(sources, out, form)
    print(f'wrote {out}; try it with: shoal generate {out} "Once upon a time"')


@app.command(name="eval", rich_help_panel=MODEL)
def evaluate(
    model: ModelDir,
    data: Annotated[Path, typer.Option("--data", help="A corpus made by `shoal prepare`.", metavar="DIR")],
    max_tokens: Annotated[int | None, typer.Option(help="Of each domain.", min=1)] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Score a model on the held-out part of each domain of a corpus."""
    _check_model(model)
    from peer.train.data import open_corpus

    corpus = open_corpus(data)
    _check_tokenizer(model, data, corpus.info.tokenizer_sha256)
    heldout = {domain.name: corpus.heldout(domain) for domain in corpus.info.domains}
    from peer import terminal
    from peer.train import evaluate as evaluating
    from peer.train.routed import RoutedModel

    with terminal.progress() as report:
        loaded = RoutedModel.load(model, device)
        result = evaluating.evaluate(loaded, heldout, max_tokens=max_tokens, progress=report)
    if as_json:
        import json

        print(json.dumps(result.as_dict(), indent=1))
    else:
        terminal.show_evaluation(result)


@app.command(rich_help_panel=MODEL)
def generate(
    model: ModelDir,
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    explain: Annotated[bool, typer.Option("--explain", help="Show which sub-model spoke which part.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Of the answer.", min=1, max=1_000_000)] = 128,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.", min=0, max=10)] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from so many tokens; 0: all.", min=0)] = 50,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.", min=0)] = 0,
    device: Device = "cpu",
) -> None:
    """Let a model go on from a prompt."""
    _check_model(model)
    from peer import terminal
    from peer.train.generate import Generation, Sampling
    from peer.train.routed import RoutedModel

    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed)
    generation = Generation(RoutedModel.load(model, device), prompt, sampling)
    print(terminal.printable(prompt), end="", flush=True)
    for piece in generation:
        print(terminal.printable(piece), end="", flush=True)
    print()
    if explain:
        print()
        terminal.show_segments(generation.segments())


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 (it failed), 2 (a user's mistake) or 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an old terminal must not end a command
    try:
        return int(app(arguments, prog_name="shoal", standalone_mode=False) or 0)
    except ShoalError as error:
        return _complain(str(error), error.exit_code)
    except _UserMistake as error:
        command = error.ctx.command_path if error.ctx else "shoal"
        return _complain(f"{error.format_message().rstrip('.')}; see: {command} --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _complain("the disk is full; free some space, then try again: what was saved is intact", 1)
        if not isinstance(error, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed into it at exit
        return 1


def _complain(message: str, exit_code: int) -> int:
    print(f"shoal: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def _place(state_dir: Path | None) -> Path:
    if state_dir is not None:
        return state_dir
    from configs.machine import default_state_dir

    return default_state_dir()


def _run_daemon(config: str | None, **flags: Any) -> None:
    """Check the settings, then become the daemon. Lists that were not given leave the preset's as they are."""
    from configs.load import load

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items() if value != []}
    settings = load(config, **given)
    own = settings.peer
    is_founding = not own.initial_peers and not (own.state_dir / RUN_FILE).exists()
    if is_founding and settings.run is None:
        raise ConfigError("nothing to found: give a preset, such as `shoal start --config tiny`, or join by an address")
    if own.data is not None and not (own.data / "corpus.json").is_file():
        raise DataError(f"{own.data} is not a prepared corpus (it has no corpus.json); make one with: shoal prepare")
    if own.private and own.data is None:
        raise UsageError("--private needs the data that shall stay here; give it with --data")
    logs.configure(own.log_level)
    if own.initial_peers:
        from dht.addresses import parse_address

        for address in own.initial_peers:
            parse_address(address)
    with local.hold_state_dir(own.state_dir):  # before the imports, which take seconds
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends them at once; the daemon has its own handler
        from peer.ranks import preload

        preload()  # the workers' imports run beside the daemon's own
        import peer.daemon

        peer.daemon.run(settings)


def _check_model(model: Path) -> None:
    if not model.is_dir():
        raise DataError(f"no model directory at {model}; `shoal fuse` writes one")
    if not (model / "shoal.json").exists() and not (model / "config.json").exists():
        raise DataError(f"{model} holds no model: there is neither shoal.json nor config.json")


def _check_tokenizer(model: Path, data: Path, expected_sha256: str) -> None:
    """Raise DataError if the tokens of `data` would mean something else to `model`."""
    import hashlib

    tokenizer = model / "tokenizer.json"
    if tokenizer.is_file() and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != expected_sha256:
        raise DataError(
            f"{data} was prepared with another tokenizer than {model}'s; use --tokenizer {tokenizer} to prepare"
        )
