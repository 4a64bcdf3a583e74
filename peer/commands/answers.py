"""The commands that let others have answers: from a fused model over HTTP, and from a running swarm."""

from typing import Annotated

import typer

from configs.errors import DataError
from peer.commands.options import MODEL, Device, Invitation, ModelDir, StateDir, check_model, home_of

app = typer.Typer()


@app.command(rich_help_panel=MODEL)
def serve(
    model: ModelDir,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.", metavar="IP")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0: any free one.", min=0, max=65_535)] = 8000,
    task: Annotated[
        bool | None, typer.Option("--task/--no-task", help="Ask as it was trained (default: if it was).")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Answer over HTTP, as OpenAI's completions do: /v1/completions and /v1/models."""
    check_model(model)
    import peer.answers.serve

    peer.answers.serve.run(model, host, port, device, task)


@app.command(rich_help_panel=MODEL)
def ask(
    address: Annotated[str, typer.Argument(help="Of any peer of the run.", metavar="ADDR")],
    prompt: Annotated[str, typer.Argument(help="The text to go on from, or a task's input.")],
    run: Annotated[str | None, typer.Option("--run", help="Ask only this run.", metavar="ID")] = None,
    task: Annotated[
        bool | None, typer.Option("--task/--no-task", help="Ask as it is trained (default: if it is).")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Of the answer.", min=1, max=512)] = 128,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.", min=0, max=10)] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from so many tokens; 0: all.", min=0)] = 50,
    seed: Annotated[int, typer.Option(help="The same seed and state give the same text.", min=0)] = 0,
    state_dir: StateDir = None,
    invitation: Invitation = None,
) -> None:
    """Let a running swarm answer: the peer with the sub-model that fits the prompt best."""
    from dht.addresses import parse_address

    parse_address(address)
    if not prompt.strip():
        raise DataError("the prompt is empty; give at least one word")
    import peer.visit.ask

    question = peer.visit.ask.Question(prompt, task, max_tokens, temperature, top_k, seed)
    peer.visit.ask.ask(address, run, question, home_of(state_dir, invitation))
