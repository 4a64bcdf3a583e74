"""What a corpus must have in common with a run or with another corpus to be trained on beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import uvloop
from numpy.typing import NDArray

from configs.corpus import DomainInfo
from configs.errors import DataError
from dht.addresses import is_address
from peer.corpus.data import TOKENIZER_FILE
from peer.corpus.remote import opened_corpus
from peer.member.invited import Home
from peer.prepare.plan import Plan
from peer.visit.visit import open_visit


@dataclass(frozen=True)
class Likeness:
    """Tokenizer, context (None: unknown), and each domain's unigram counts (V,)."""

    tokenizer_json: bytes
    context_length: int | None
    counts: Mapping[str, NDArray[np.uint64]]


def likeness_of(source: str, home: Home | None = None) -> Likeness:
    """Return that of a corpus (a directory or a URL), or of the run of a peer (an address).

    Raises UsageError, NetworkError, DataError: one line each.
    """
    if not is_address(source):
        with opened_corpus(source) as corpus:
            _check(source, corpus.info.domains)
            return Likeness(corpus.tokenizer_json(), None, corpus.all_counts())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_of_run(source, home))


def alike(source: str, plan: Plan, folder: Path, context_length: int | None, home: Home | None = None) -> Plan:
    """Return a plan with the tokens and domains of a run or corpus; its tokenizer is written into `folder`.

    `context_length` is what was given, and goes over the run's. Raises as `likeness_of`.
    """
    likeness = likeness_of(source, home)
    tokenizer = folder / TOKENIZER_FILE
    tokenizer.write_bytes(likeness.tokenizer_json)
    length = context_length or likeness.context_length or plan.context_length
    return replace(plan, known=likeness.counts, tokenizer=tokenizer, context_length=length)


async def _of_run(address: str, home: Home | None) -> Likeness:
    async with open_visit([address], home=home) as run:
        _check("the run", run.domains)
        return Likeness(run.library.tokenizer_json, run.spec.model.context_length, dict(run.counts))


def _check(name: str, domains: Sequence[DomainInfo]) -> None:
    if tasks := [domain.name for domain in domains if domain.task is not None]:
        raise DataError(f"{name} has tasks ({', '.join(tasks)}), into which text cannot be sorted; leave --like out")
