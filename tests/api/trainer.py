"""The three-line loop as a program of its own: prints JSON lines, ends when its standard input does."""

import json
import logging
import sys
import threading

import torch

import shoal


def main(seed: int, hidden: int, round_seconds: float, *initial_peers: str) -> None:
    """Train a small module of the caller's own on a known function, until told to stop."""
    logging.basicConfig(level="INFO", format="%(name)s: %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(8, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    told = threading.Event()
    with shoal.Outer(
        module, run="toy", initial_peers=initial_peers, round_seconds=round_seconds, host="127.0.0.1"
    ) as outer:
        begun = outer.anchor()
        same = all(torch.equal(begun.parameters[name], value) for name, value in module.named_parameters())
        say(address=outer.address, version=begun.version, digest=begun.digest, is_anchor=same)
        threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
        version, steps = begun.version, 0
        while not told.wait(0.002):
            inputs = torch.randn(32, 8)
            loss = (module(inputs)[:, 0] - inputs.sum(1).sin()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            outer.step(32, loss)
            steps += 1
            if steps % 20 == 0 and (anchor := outer.anchor()).version > version:
                version = anchor.version
                block = outer.status().blocks[0]
                say(version=version, digest=anchor.digest, tokens=anchor.tokens, outcome=block.outcome)
    say(closed=True, steps=steps)


def say(**facts: object) -> None:
    """Print one line."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
    except shoal.ShoalError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
