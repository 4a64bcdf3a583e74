"""What is checked before anything begins, whoever asks for it, a command or a program; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, DataError, UsageError
from configs.outlets import is_remote, read_target

if TYPE_CHECKING:
    from configs.load import Settings

RUN_FILE = "run.json"  # of a state directory that has been in a run


def founds(settings: Settings) -> bool:
    """Return whether a daemon with these settings would found a run."""
    return not settings.peer.initial_peers and not (settings.peer.state_dir / RUN_FILE).exists()


def check_start(settings: Settings) -> None:
    """Raise UsageError, in one of its kinds, if a daemon cannot begin with these settings."""
    own = settings.peer
    is_founding = founds(settings)
    if is_founding and settings.run is None:
        raise ConfigError(_nothing_to_found(settings))
    if isinstance(own.data, Path) and not (own.data / "corpus.json").is_file():
        raise DataError(_no_corpus(settings))
    if is_founding and own.init_from is None and settings.run is not None and settings.run.strategy.kind == "adapters":
        raise UsageError("adapters are trained on a pretrained model: name a Hugging Face model with --init-from DIR")
    if is_founding and own.init_from is not None:
        if not (own.init_from / "config.json").is_file():
            raise DataError(
                f"{own.init_from} is no Hugging Face model: there is no config.json; name the directory that has it"
            )
        if own.data is None:
            raise UsageError(
                f"--init-from needs text in that model's tokens: run shoal prepare SOURCE --out DIR --tokenizer "
                f"{own.init_from}, then give it with --data DIR"
            )
    if own.private and own.data is None:
        remedy = "" if "private" in settings.given_by else ", or say --no-private: it was said at an earlier start"
        raise UsageError(f"--private needs the data that shall stay here; give it with --data{remedy}")
    if own.outlets:
        from peer.track.trackers import check_installed

        check_installed(own.outlets)
    if own.initial_peers:
        from dht.addresses import parse_address

        for address in own.initial_peers:
            parse_address(address)


def check_fuse(sources: Sequence[str], out: Path) -> None:
    """Raise UsageError if there is nothing at one of `sources`, or something at `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and is not empty; choose another directory")
    from dht.addresses import is_address

    for source in sources:
        if is_remote(source):
            read_target(source)
        elif not is_address(source) and not Path(source).is_dir():
            raise UsageError(
                f"'{source}' is neither a directory nor an address; give one such as /ip4/203.0.113.7/tcp/4000/p2p/…"
            )


def _nothing_to_found(settings: Settings) -> str:
    remedy = "give a preset, such as `shoal start --config tiny`, or join by an address"
    if not settings.run_variables:
        return f"nothing to found: {remedy}"
    variables = ", ".join(settings.run_variables)
    return f"{variables} in the environment changes the preset that a run is founded with, and none is given: {remedy}"


def _no_corpus(settings: Settings) -> str:
    from configs.kept import MACHINE_FILE

    own = settings.peer
    if "data" in settings.given_by:
        return f"{own.data} is not a prepared corpus (it has no corpus.json); make one with: shoal prepare"
    return (
        f"{own.state_dir / MACHINE_FILE} keeps {own.data} as this machine's data, but there is no prepared corpus any "
        "more (no corpus.json); bring it back, give another with --data, or delete that line of the file"
    )
