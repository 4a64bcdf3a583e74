"""Folders mean what their owner means: domains, splits, shards, and what is held out."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
from folders import counts, fill, find, layout, refusal

from peer.sources.skips import Reason


def test_folders_are_domains_and_files_beside_them_one_more(tmp_path: Path) -> None:
    fill(tmp_path / "texts", "deep/one/a.txt", "deep/two/b.txt", "news/c.jsonl.gz", "d.txt", "e.txt")
    assert layout(tmp_path / "texts") == {"a.txt": "deep", "b.txt": "deep", "c.jsonl.gz": "news"} | {
        "d.txt": "texts",
        "e.txt": "texts",
    }
    fill(tmp_path / "flat", *(f"document {number}.txt" for number in range(300)))
    assert set(layout(tmp_path / "flat").values()) == {"flat"}


def test_splits_are_no_domains(tmp_path: Path) -> None:
    fill(tmp_path / "a", "train.jsonl", "valid.jsonl", "my_test_set.txt", "wiki-dev.txt", "held-out.txt", "rest.txt")
    assert layout(tmp_path / "a") == {
        "train.jsonl": "a train",
        "valid.jsonl": "a heldout",
        "my_test_set.txt": "a heldout",
        "wiki-dev.txt": "a heldout",
        "held-out.txt": "a heldout",
        "rest.txt": "a",
    }
    fill(tmp_path / "b", "wiki/train.txt", "wiki/valid.txt", "news/train/x.txt", "news/test/y.txt")
    assert layout(tmp_path / "b") == {"train.txt": "wiki train", "valid.txt": "wiki heldout"} | {
        "x.txt": "news train",
        "y.txt": "news heldout",
    }
    fill(tmp_path / "c", "train/pos/0.txt", "train/neg/1.txt", "test/pos/2.txt")
    assert layout(tmp_path / "c") == {"0.txt": "pos train", "1.txt": "neg train", "2.txt": "pos heldout"}
    fill(tmp_path / "d", "wiki_train/a.txt", "wiki_valid/b.txt")
    assert layout(tmp_path / "d") == {"a.txt": "wiki train", "b.txt": "wiki heldout"}


def test_words_in_titles_and_tests_of_code_hold_nothing_out(tmp_path: Path) -> None:
    fill(tmp_path, "How to train and test a dog.txt", "contested.txt", "trainspotting.txt", "train_test.txt")
    fill(tmp_path, "src/test_parser.py", "src/test/java/x.py", "src/main/y.py")
    files, _ = find(tmp_path, extensions=(".py",))
    assert {file.split for file in files} == {None} and len(files) == 7


def test_a_text_with_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "valid.txt", "test.txt")
    assert "all text would be held out" in refusal(tmp_path)
    assert layout(tmp_path / "valid.txt") == {"valid.txt": tmp_path.name[:64]}  # named by itself, it is what there is
    fill(tmp_path, "train.txt")
    assert len(layout(tmp_path)) == 3


def test_shards_are_one(tmp_path: Path) -> None:
    names = [f"part-{number:04}.jsonl.gz" for number in range(3)] + ["train-00000-of-00042.jsonl", "shard_12.txt"]
    fill(tmp_path / "c4", *names)
    assert {domain.split()[0] for domain in layout(*(tmp_path / "c4" / name for name in names)).values()} == {"c4"}
    fill(tmp_path / "many", *(f"{number:02}/part-{number}.txt" for number in range(70)))
    assert set(layout(tmp_path / "many").values()) == {"many"}
    files, _ = find(fill(tmp_path / "units", *(f"part-{number}.txt" for number in range(30))))
    assert {file.unit for file in files} == {"paragraph"}


def test_several_sources_are_a_domain_each(tmp_path: Path) -> None:
    fill(tmp_path, "cod/train.txt", "eel/train.txt", "x/a.txt", "y/a.txt", "wiki/train.txt", "wiki/valid.txt")
    files, _ = find(tmp_path / "cod" / "train.txt", tmp_path / "eel" / "train.txt")
    assert [file.domain for file in files] == ["cod", "eel"] and all(file.is_named for file in files)
    assert [file.domain for file in find(tmp_path / "cod", tmp_path / "eel")[0]] == ["cod", "eel"]
    assert [file.domain for file in find(tmp_path / "x" / "a.txt", tmp_path / "y" / "a.txt")[0]] == ["x", "y"]
    assert layout(tmp_path / "wiki/train.txt", tmp_path / "wiki/valid.txt", tmp_path / "x") == {
        "train.txt": "wiki train",
        "valid.txt": "wiki heldout",
        "a.txt": "x",
    }
    twins = [fill(tmp_path / half, "same/train.txt") / "same" / "train.txt" for half in ("p", "q")]
    assert "rename one" in refusal(*twins)
    assert len(find(*twins, may_share_names=True)[0]) == 2


def test_split_folders_named_together_are_one_domain(tmp_path: Path) -> None:
    fill(tmp_path / "wiki", "train/a.txt", "dev/b.txt")
    assert layout(tmp_path / "wiki" / "train", tmp_path / "wiki" / "dev") == {
        "a.txt": "wiki train",
        "b.txt": "wiki heldout",
    }


def test_too_many_domains_are_refused_with_advice_that_works(tmp_path: Path) -> None:
    fill(tmp_path, *(f"topic {chr(97 + number // 26)}{chr(97 + number % 26)}/a.txt" for number in range(70)))
    assert "70 sub-folders" in refusal(tmp_path) and "--domains 8" in refusal(tmp_path)
    assert len(find(tmp_path, may_share_names=True)[0]) == 70  # what --domains says
    fill(tmp_path / "flat", *(f"{chr(97 + number // 26)}{chr(97 + number % 26)}.txt" for number in range(70)))
    assert "name the folder that they are in" in refusal(*sorted((tmp_path / "flat").iterdir()))
    assert len(layout(tmp_path / "flat")) == 70
    fill(tmp_path / "twins", "a b/x.txt", "a-b/y.txt")
    assert "rename one" in refusal(tmp_path / "twins")


def test_what_is_named_as_held_out_is(tmp_path: Path) -> None:
    fill(tmp_path / "texts", "wiki/a.txt", "wiki/b.txt", "news/c.txt", "news/extra/d.txt")
    inside = (str(tmp_path / "texts/wiki/b.txt"), str(tmp_path / "texts/news/extra"))
    assert layout(tmp_path / "texts", heldout=inside) == {
        "a.txt": "wiki",
        "b.txt": "wiki heldout",
        "c.txt": "news",
        "d.txt": "news heldout",
    }
    fill(tmp_path, "elsewhere/wiki/e.txt", "news-test.txt", "other.txt", "README.md")
    outside = tuple(str(tmp_path / name) for name in ("elsewhere", "news-test.txt", "other.txt"))
    found = layout(tmp_path / "texts", heldout=outside)
    assert (found["e.txt"], found["news-test.txt"], found["other.txt"]) == (
        "wiki heldout",
        "news heldout",
        "other heldout",
    )
    assert layout(tmp_path / "texts" / "wiki", heldout=(str(tmp_path / "other.txt"),))["other.txt"] == "wiki heldout"
    assert "no such file" in refusal(tmp_path / "texts", heldout=(str(tmp_path / "nowhere"),))
    assert "all text would be held out" in refusal(tmp_path / "texts", heldout=(str(tmp_path / "texts"),))


def test_a_clone_of_a_dataset_is_one_domain(tmp_path: Path) -> None:
    root = tmp_path / "fish-stories"
    fill(root, "README.md", content="---\nlicense: mit\n---\n# Fish\n")
    fill(root, ".gitattributes", ".git/HEAD")
    (root / "data").mkdir()
    for split in ("train", "test"):
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), root / f"data/{split}-00000-of-00042.parquet")
    assert layout(root) == {
        "test-00000-of-00042.parquet": "fish-stories heldout",
        "train-00000-of-00042.parquet": "fish-stories train",
    }


def test_a_saved_dataset_is_one_domain_with_splits(tmp_path: Path) -> None:
    for split in ("train", "validation", "unsupervised"):
        fill(tmp_path / "texts/imdb" / split, "dataset_info.json", "state.json", "cache-12ab.arrow", content="{}")
        table = pyarrow.table({"text": ["a"]})
        path = tmp_path / "texts/imdb" / split / "data-00000-of-00001.arrow"
        with pyarrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    fill(tmp_path / "texts/imdb", "dataset_dict.json", content='{"splits": ["train"]}')
    for root, domain in ((tmp_path / "texts/imdb", "imdb"), (tmp_path / "texts", "imdb")):
        files, skips = find(root)
        assert [(file.domain, file.split, file.form) for file in files] == [
            (domain, "train", "arrow"),
            (domain, None, "arrow"),
            (domain, "heldout", "arrow"),
        ]
        assert counts(skips) == {Reason.ABOUT: 7, Reason.KIND: 3}
