"""Every command with its options, by Typer's own page maker: the page `commands`."""

import typer
from typer.cli import get_docs_for_click

from peer.commands.main import app


def page() -> str:
    """Return the page in Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="shoal")
    text = get_docs_for_click(obj=command, ctx=context, name="shoal", title="Every command")
    return text.replace("```console\n", "```text\n")  # they are forms, not commands that run
