"""The routed form: sub-models side by side, mixed token by token by a Bayes filter. Loads what `fuse` writes.

A plain Hugging Face directory (a fused Mixtral, one sub-model, anybody's causal LM) loads as a routed model with one
sub-model, so all of them are scored by the same code and their numbers compare.

Shapes: B windows, K sub-models, T tokens of one document, V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
import transformers
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from torch import Tensor

from configs.corpus import MAX_DOMAINS, TaskFormat
from configs.errors import DataError
from configs.files import read_model
from configs.run import Frozen
from peer.corpus.chats import FORMS
from peer.corpus.data import Array
from peer.corpus.tokenizer import end_of_text, open_tokenizer
from peer.fused.router import Router, mix

MANIFEST = "shoal.json"
COUNTS = "counts.safetensors"
TASK = "task.json"  # configs/corpus.py: TaskFormat; of a model that was trained on a task, whatever its form
MAX_WINDOW = 2048  # tokens; a model with a longer context is scored in windows of this many
MAX_LOGITS = 1 << 23  # values of one batch of logits, 32 MiB; larger was not faster on a CPU

Progress = Callable[[int, int], None]  # (tokens done, tokens in all)


class SubModelInfo(Frozen):
    """One sub-model of a routed directory, in the folder of its name."""

    name: Annotated[str, Field(pattern=r"^[a-z]+(\.\d{1,3})?$")]
    domain: Annotated[str, Field(max_length=64)]  # what it was trained on; "all" is every domain


class Manifest(Frozen):
    """The `shoal.json` of a routed directory."""

    version: Literal[1] = 1
    run_id: str
    run_name: str
    strategy: str
    end_of_text: Annotated[int, Field(ge=0)]
    sub_models: Annotated[tuple[SubModelInfo, ...], Field(min_length=1, max_length=MAX_DOMAINS)]


@dataclass(frozen=True)
class RoutedModel:
    """K causal LMs of one tokenizer, and the router between them. Every token costs K forward passes."""

    sub_models: tuple[SubModelInfo, ...]
    models: tuple[Any, ...]  # transformers.PreTrainedModel
    router: Router
    end_of_text: int
    tokenizer: Tokenizer | None  # only needed for text
    task: TaskFormat | None = None  # how it was trained to be asked

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """Read a routed or a plain Hugging Face directory. Runs no code from it.

        Raises DataError: says which file is missing or damaged.
        """
        if not path.is_dir():
            raise DataError(f"no model directory at {path}; `shoal fuse` writes one")
        if not (path / MANIFEST).exists():
            return cls._load_plain(path, device)
        manifest = _read_manifest(path / MANIFEST)
        models = tuple(load_causal_lm(path / info.name, device) for info in manifest.sub_models)
        vocab_sizes = {int(model.config.vocab_size) for model in models}
        counts = _read_counts(path / COUNTS)
        if {counts.shape[1]} != vocab_sizes or counts.shape[0] != len(models):
            raise DataError(f"{path}: {COUNTS} does not fit the sub-models; fuse again")
        _check_end_of_text(path, manifest.end_of_text, counts.shape[1])
        tokenizer = _read_tokenizer(path / "tokenizer.json")
        return cls(manifest.sub_models, models, Router(counts), manifest.end_of_text, tokenizer, _read_task(path))

    @classmethod
    def _load_plain(cls, path: Path, device: str) -> Self:
        model = load_causal_lm(path, device)
        # A sub-model of a routed directory shares the tokenizer of the whole.
        places = [place for place in (path, path.resolve().parent) if (place / "tokenizer.json").is_file()]
        tokenizer = _read_tokenizer(places[0] / "tokenizer.json") if places else None
        task = _read_task(places[0]) if places else None
        ends = model.config.eos_token_id
        if isinstance(ends, list) and ends:  # a text ends with one of them, which the tokenizer's files name
            named = ends[0] if tokenizer is None else end_of_text(tokenizer, places[0])
            ends = named if named in ends else ends[0]
        _check_end_of_text(path, ends, model.config.vocab_size)
        return cls.single(SubModelInfo(name="model", domain="all"), model, ends, tokenizer, task)

    @classmethod
    def single(
        cls,
        info: SubModelInfo,
        model: Any,
        end_of_text: int,
        tokenizer: Tokenizer | None,
        task: TaskFormat | None = None,
    ) -> Self:
        """Return a causal LM as a routed model with one sub-model, which answers everything."""
        counts = np.zeros((1, model.config.vocab_size), dtype=np.uint64)
        return cls((info,), (model,), Router(counts), end_of_text, tokenizer, task)

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        return int(self.router.counts.shape[1])

    @property
    def context_length(self) -> int:
        """Tokens that the sub-models read at once."""
        return min(MAX_WINDOW, *(int(model.config.max_position_embeddings) for model in self.models))

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens at which an answer ends: the end of text, and what the model says."""
        said = getattr(self.models[0].generation_config, "eos_token_id", None)
        more = said if isinstance(said, list) else [said]
        if self.task is not None and self.task.chat is not None and self.tokenizer is not None:
            more = [*more, self.tokenizer.token_to_id(FORMS[self.task.chat].end)]
        return frozenset((self.end_of_text, *(token for token in more if isinstance(token, int))))

    def only(self, name: str) -> Self:
        """Return this model with a single sub-model, which then answers everything. Raises DataError: no such."""
        for index, info in enumerate(self.sub_models):
            if info.name == name:
                router = replace(self.router, counts=self.router.counts[index : index + 1])
                return replace(self, sub_models=(info,), models=(self.models[index],), router=router)
        raise DataError(f"no sub-model '{name}'; name one of {', '.join(info.name for info in self.sub_models)}")

    def log_likelihoods(self, documents: Sequence[np.ndarray], progress: Progress | None = None) -> list[Array]:
        """Return what each sub-model alone thinks of each token, (K, T) for each document of T tokens.

        A document is read in windows of the context's length. Each window begins with the end-of-text token, which
        is not scored; each token of the document is scored once. Costs K forward passes a token.
        Raises DataError: a token that is not in the vocabulary.
        """
        for document in documents:
            if document.size and int(document.max()) >= self.vocab_size:
                raise DataError(
                    f"token {int(document.max())} is outside the model's vocabulary of {self.vocab_size}; "
                    "use tokens that were prepared with this model's tokenizer"
                )
        results = [np.zeros((len(self.models), len(document))) for document in documents]
        length = self.context_length
        windows = [(d, start) for d, document in enumerate(documents) for start in range(0, len(document), length)]
        # Alike lengths side by side, so that little is spent on padding.
        windows.sort(key=lambda window: -min(length, len(documents[window[0]]) - window[1]))
        total, done = sum(map(len, documents)), 0
        at = 0
        while at < len(windows):
            longest = min(length, len(documents[windows[at][0]]) - windows[at][1])
            batch = windows[at : at + max(1, MAX_LOGITS // (self.vocab_size * longest))]
            at += len(batch)
            texts = [documents[d][start : start + length] for d, start in batch]
            scores = self._score_windows(texts, longest)
            for row, ((d, start), text) in enumerate(zip(batch, texts, strict=True)):
                results[d][:, start : start + len(text)] = scores[:, row, : len(text)]
                done += len(text)
            if progress is not None:
                progress(done, total)
        return results

    @torch.inference_mode()
    def _score_windows(self, texts: Sequence[np.ndarray], longest: int) -> Array:
        """Return log likelihoods (K, B, T); what lies behind a text's end is meaningless."""
        padded = np.full((len(texts), longest + 1), self.end_of_text, dtype=np.int64)
        for row, text in enumerate(texts):
            padded[row, 1 : 1 + len(text)] = text
        tokens = torch.from_numpy(padded).to(self.models[0].device)
        scores = []
        for model in self.models:
            # Padding is on the right and attention is causal: no mask is needed.
            logits_BTV: Tensor = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
            chosen = logits_BTV.gather(2, tokens[:, 1:, None]).squeeze(2)
            scores.append((chosen - logits_BTV.logsumexp(dim=2)).double().cpu().numpy())
        return np.stack(scores)

    def mixture(self, log_likelihoods: Array) -> Array:
        """Return the routed log likelihood (T,) of each token of a document, from those of the sub-models (K, T)."""
        weights, _ = self.router.route(log_likelihoods)
        return mix(weights, log_likelihoods)


def load_causal_lm(path: Path, device: str = "cpu") -> Any:
    """Load a Hugging Face causal LM from a local directory of safetensors, in float32, ready to be asked.

    Raises DataError: the directory is missing, damaged, or lacks weights that the architecture needs.
    """
    if not (path / "config.json").is_file():
        raise DataError(f"{path} holds no model: there is no config.json; name what `shoal fuse` wrote")
    try:
        with quiet_transformers():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                path,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} cannot be loaded: {reason}; fuse again, or take another copy") from None
    # Transformers fills what it does not find with noise and only warns.
    if report["missing_keys"] or report["mismatched_keys"]:
        lost = sorted(map(str, report["missing_keys"] or report["mismatched_keys"]))
        raise DataError(
            f"{path} is damaged: {len(lost)} tensors are missing or misshapen, such as {lost[0]}; "
            "fuse again, or take another copy"
        )
    return model.to(device).eval()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep Transformers from writing progress bars and advice to stderr; errors still come."""
    logging = transformers.utils.logging
    has_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def _read_manifest(path: Path) -> Manifest:
    manifest = read_model(path, Manifest, "fuse again", DataError)
    if manifest is None:
        raise DataError(f"{path} is missing; fuse again")
    return manifest


def _read_counts(path: Path) -> np.ndarray:
    try:
        counts = load_file(path)["counts"]
    except (OSError, KeyError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}; fuse again") from None
    if counts.ndim != 2 or counts.dtype != np.uint64:
        raise DataError(f"{path} is damaged: counts must be a table of whole numbers; fuse again")
    return counts


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; fuse again") from None
    try:
        return open_tokenizer(raw)
    except DataError as error:
        raise DataError(f"{path} is not a tokenizer: {error}; fuse again") from None


def _read_task(folder: Path) -> TaskFormat | None:
    return read_model(folder / TASK, TaskFormat, "fuse again", DataError)


def _check_end_of_text(path: Path, end_of_text: object, vocab_size: int) -> None:
    if not isinstance(end_of_text, int) or not 0 <= end_of_text < vocab_size:
        raise DataError(f"{path}: the model names no end-of-text token; set eos_token_id in its config.json")
