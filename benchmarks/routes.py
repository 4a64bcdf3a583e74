"""What fused sub-models think of held-out text, under every way to choose between them.

Every token of every document is scored, from the first, by the product's own scorer and router; a route sees earlier
tokens only. But for the oracle, which is told each document's domain.

Shapes: K sub-models, T tokens of a document.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from torch import Tensor
from transformers import LlamaForCausalLM

from configs.run import ModelSpec, RunSpec
from peer.corpus.data import Array, Corpus
from peer.fused.evaluate import split_documents
from peer.fused.parts import filled
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router, mix
from peer.train.model import build_config
from peer.train.partition import COMMON, Strategy

DEFAULT = "posterior"  # the product's router: the mixture under the sub-models' own likelihood
ORACLE = "told"

Losses = dict[str, dict[str, float]]  # router → domain → nats per token


def losses(
    sub_models: Mapping[str, Mapping[str, Tensor]],
    model: ModelSpec,
    corpus: Corpus,
    tokens: int,
    domains: Collection[str] | None = None,
) -> Losses:
    """Return the held-out loss by router and domain, over the first `tokens` of each of the `domains` (None: all).

    A model that has not parted has one route, the default.
    """
    return losses_of(routed_model(sub_models, model, corpus), corpus, tokens, domains)


def losses_of(routed: RoutedModel, corpus: Corpus, tokens: int, domains: Collection[str] | None = None) -> Losses:
    """Return the same for a model that is built already."""
    found: Losses = {}
    for index, domain in enumerate(corpus.info.domains):
        if domains is not None and domain.name not in domains:
            continue
        held_out = corpus.heldout(domain)[:tokens].astype(np.int64)
        documents = split_documents(held_out, routed.end_of_text)
        thoughts = routed.log_likelihoods(documents)
        for router, chosen in _routes(routed, documents, thoughts, index).items():
            found.setdefault(router, {})[domain.name] = -float(np.concatenate(chosen).mean())
    return found


def sub_models_of(spec: RunSpec, blocks: Mapping[str, Tensor], domains: int) -> dict[str, dict[str, Tensor]]:
    """Return the named parameters of each sub-model that flat blocks make up; of `model` before they part."""
    strategy = Strategy.of(spec.strategy, domains)
    names = [name for name in strategy.sub_models if set(strategy.blocks(name)) <= blocks.keys()] or [COMMON]
    return {name: strategy.assemble(name, blocks, spec.model) for name in names}


def routed_model(sub_models: Mapping[str, Mapping[str, Tensor]], model: ModelSpec, corpus: Corpus) -> RoutedModel:
    """Return the routed form of named parameters, as `fuse` makes it of blocks."""
    counts = [corpus.counts(domain) for domain in corpus.info.domains]
    infos, tables = [], []
    for name in sub_models:
        domain = None if name == COMMON else int(name.rsplit(".", 1)[1])
        infos.append(SubModelInfo(name=name, domain="all" if domain is None else corpus.info.domains[domain].name))
        tables.append(np.sum(counts, axis=0, dtype=np.uint64) if domain is None else counts[domain])
    models = tuple(filled(LlamaForCausalLM(build_config(model)), named) for named in sub_models.values())
    return RoutedModel(tuple(infos), models, Router(np.stack(tables)), corpus.info.end_of_text, None)


def _routes(
    routed: RoutedModel, documents: Sequence[np.ndarray], thoughts: Sequence[Array], told: int
) -> dict[str, list[Array]]:
    """Return the log likelihoods (T,) of each document by each router, from those of the sub-models (K, T)."""
    router = routed.router
    routes: dict[str, list[Array]] = {DEFAULT: [routed.mixture(each) for each in thoughts]}
    if len(routed.models) == 1:
        return routes
    names = [info.name.rsplit(".", 1)[1] for info in routed.sub_models]
    by_posterior = [router.route(each)[0] for each in thoughts]
    by_counts = [router.route(router.naive_bayes(each))[0] for each in documents]
    if str(told) in names:
        routes[ORACLE] = [each[names.index(str(told))] for each in thoughts]
    routes["posterior, one speaks"] = [_hard(w, each) for w, each in zip(by_posterior, thoughts, strict=True)]
    routes["naive Bayes"] = [mix(w, each) for w, each in zip(by_counts, thoughts, strict=True)]
    routes["naive Bayes, one speaks"] = [_hard(w, each) for w, each in zip(by_counts, thoughts, strict=True)]
    return routes


def _hard(log_weights: Array, log_likelihoods: Array) -> Array:
    """Return what the sub-model with the largest weight thinks of each token, (T,)."""
    return np.asarray(np.take_along_axis(log_likelihoods, log_weights.argmax(axis=0)[None], axis=0)[0])
