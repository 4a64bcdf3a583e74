"""Every command in README and docs: each block runs here, or says why nobody could."""

from pathlib import Path

import pytest
from blocks import ROOT, Block, blocks, pages
from story import Story

ALL = [block for page in pages() for block in blocks(page)]
STORIES = {page: [block for block in ALL if block.page == page and block.is_run] for page in pages()}


# A page is played in its order: its quick blocks here, all of them by `make test-long`.
QUICK = [page for page, story in STORIES.items() if any(not block.is_long for block in story)]
LONG = [page for page, story in STORIES.items() if any(block.is_long for block in story)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal LM on disk: a small Llama with random weights, its tokenizer, and room for 1,024 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.families import add_tokenizer

    folder = tmp_path_factory.mktemp("base") / "model"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=300, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    add_tokenizer(folder)
    return folder


def test_each_block_that_could_run_does() -> None:
    could = [block for block in ALL if not block.cannot_run]
    run = [block for block in could if block.is_run or block.test is not None]
    idle = [f"{block.where}: {block.mark or 'no comment before it'}" for block in could if block not in run]
    assert not idle, "a block says <!-- run -->, or <!-- not run: … --> with a reason that blocks.py knows"
    assert len(run) / len(could) == 1.0
    assert len(run) > 30


def test_a_comment_says_nothing_that_is_not_understood() -> None:
    known = {"long", "may fail", "in a notebook"}
    assert not [block.where for block in ALL if block.is_run and {o for o in block.options if o[:3] != "on "} - known]


@pytest.mark.parametrize("block", [block for block in ALL if block.test is not None], ids=lambda block: block.where)
def test_a_block_with_a_test_of_its_own_is_read_by_that(block: Block) -> None:
    assert block.test is not None
    assert block.page.name in block.test.read_text(encoding="utf-8")


@pytest.mark.swarm
@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", QUICK, ids=name)
def test_the_commands_of_a_page(document: Path, model: Path) -> None:
    play([block for block in STORIES[document] if not block.is_long], model)


@pytest.mark.long
@pytest.mark.swarm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("document", LONG, ids=name)
def test_the_commands_of_a_page_that_take_longer(document: Path, model: Path) -> None:
    play(STORIES[document], model)


def play(story: list[Block], model: Path) -> None:
    with Story(model) as told:
        for block in story:
            told.play(block)
