"""The commands that push models and checkpoints to places beyond the swarm, and pull them from there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.errors import DataError, UsageError
from configs.outlets import read_target
from peer.commands.options import MODEL

if TYPE_CHECKING:
    from configs.outlets import Target

RUN_FILE = "run.json"  # of a state directory that has been in a run
WHERE = "A folder, s3://BUCKET/PREFIX or hf://USER/REPO."

app = typer.Typer()

TargetName = Annotated[str, typer.Argument(help=WHERE, metavar="TARGET")]


@app.command(rich_help_panel=MODEL)
def push(
    source: Annotated[Path, typer.Argument(help="A fused model, or a peer's state directory.", metavar="DIR")],
    target: TargetName,
) -> None:
    """Push a fused model, or a peer's checkpoint, to a folder, a bucket or the Hugging Face hub.

    What is there already is not sent again, also after an interruption.
    """
    to = read_target(target)
    if not source.is_dir():
        raise DataError(f"there is no directory {source}; give a fused model or a state directory")
    if (source / RUN_FILE).is_file():
        _push_state(source, to)
    else:
        push_fused(source, to)


@app.command(rich_help_panel=MODEL)
def pull(
    target: TargetName,
    out: Annotated[Path, typer.Argument(help="A new directory, or one of an interrupted pull.", metavar="DIR")],
) -> None:
    """Fetch a model, or a checkpoint as a state directory, that was pushed."""
    source = read_target(target)
    from peer.commands import terminal
    from peer.publish import models, restore

    if restore.holds_checkpoint(source):
        check_new(out)
        checkpoint = restore.restore(source, out)
        print(
            f"wrote {out}: run {checkpoint.run_id} ({checkpoint.run_name}), {checkpoint.age:,} tokens; go on with it "
            f"with: shoal start --state-dir {out} --data CORPUS"
        )
        return
    with terminal.progress() as report:
        count = models.pull_model(source, out, report)
    print(f'wrote {out}, {count} files; try it with: shoal generate {out} "Once upon a time"')


def push_fused(folder: Path, target: "Target") -> None:
    """Push a fused model, with its progress, and say so."""
    from peer.commands import terminal
    from peer.publish.models import push_model

    with terminal.progress() as report:
        sent, count = push_model(folder, target, report)
    print(f"pushed {folder} to {target}: {sent} of {count} files were sent")


def _push_state(folder: Path, target: "Target") -> None:
    import time

    from peer.publish.checkpoint import open_state_dir, push_checkpoint
    from peer.publish.opening import open_place

    snapshot = open_state_dir(folder)
    to = target.below(snapshot.spec.run_id, snapshot.peer_id)
    pushed = push_checkpoint(open_place(to), snapshot, time.time(), folder)
    print(
        f"pushed the checkpoint of {folder} to {to}: {pushed.sent_bytes / 1e6:.1f} of {pushed.total_bytes / 1e6:.1f} "
        f"MB were new; fuse it with: shoal fuse {target} --out model"
    )


def check_new(folder: Path) -> None:
    """Raise UsageError if a run has been in a state directory already."""
    if (folder / RUN_FILE).is_file():
        raise UsageError(f"{folder} has a run already; choose another directory, or `shoal start` to go on with it")
