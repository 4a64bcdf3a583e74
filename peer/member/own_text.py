"""The corpus that a peer brings: in a folder, at a URL, or the built-in one; and how it fits the run's domains."""

import logging
from collections.abc import Sequence
from pathlib import Path

from configs.corpus import DomainInfo
from configs.errors import DataError
from configs.limits import GB
from configs.machine import PeerConfig
from configs.run import RunPlan, RunSpec
from peer.corpus.data import TOKENIZER_FILE, Corpus, open_corpus
from peer.corpus.remote import open_remote

log = logging.getLogger(__name__)

REMOTE = "remote"  # folder of what was copied of a corpus at a URL


def given_corpus(config: PeerConfig) -> Corpus | None:
    """Open the corpus that this peer was told of, if it was; of one at a URL what is small is copied.

    Raises DataError, and for one at a URL also UsageError, ConfigError, NetworkError.
    """
    if config.data is None or isinstance(config.data, Path):
        return None if config.data is None else open_corpus(config.data)
    folder = config.cache_dir or config.state_dir / "corpus" / REMOTE
    most_gb = config.cache_gb if config.disk_gb is None else min(config.cache_gb, config.disk_gb / 2)
    log.info("the corpus is at %s: up to %.3g GB of it lie in %s at a time", config.data, most_gb, folder)
    return open_remote(config.data, folder, int(most_gb * GB))


def own_corpus(plan: RunPlan, config: PeerConfig) -> Corpus:
    """Return the corpus that a run is founded on: the given one, or the built-in one. Raises as `given_corpus`."""
    given = given_corpus(config)
    if given is not None:
        return given
    from peer.prepare.builtin import built_in_corpus

    log.info("no --data given: preparing the built-in corpus")
    return built_in_corpus(config.state_dir / "corpus", plan.model.vocab_size, plan.model.context_length)


def built_in(state_dir: Path, spec: RunSpec) -> Corpus | None:
    """Return the built-in corpus that a founder prepared in its state directory, if it is this run's."""
    corpora = [path.parent for path in (state_dir / "corpus").glob(f"*/{TOKENIZER_FILE}")]
    return next((c for c in map(open_corpus, corpora) if c.info.tokenizer_sha256 == spec.tokenizer_sha256), None)


def match(corpus: Corpus, spec: RunSpec, domains: Sequence[DomainInfo]) -> list[DomainInfo]:
    """Return the run's domains with this peer's own shards in the place of those that it cannot fetch.

    Raises DataError: another tokenizer, a domain that the run has not, or examples in another format.
    """
    if corpus.info.tokenizer_sha256 != spec.tokenizer_sha256:
        raise DataError(
            f"{corpus.name} was prepared with another tokenizer than the run's; use the run's tokenizer.json"
        )
    own = {domain.name: domain for domain in corpus.info.domains}
    known = {domain.name for domain in domains}
    if strange := sorted(own.keys() - known):
        raise DataError(
            f"the run has no domain {', '.join(strange)}; its domains are {', '.join(sorted(known))}: prepare yours "
            "by one of these names, or found a run of your own"
        )
    for domain in domains:
        mine = own.get(domain.name)
        if mine is not None and not domain.is_public and mine.task_format != domain.task_format:
            form = domain.task_format
            wanted = f"examples, with {form.option} --context-length {form.window}" if form else "text"
            raise DataError(f"domain '{domain.name}' of {corpus.name} is not as the run has it; prepare it of {wanted}")
    return [own[d.name] if d.name in own and not d.is_public else d for d in domains]
