"""Folders mean what their owner means, and of all that is in them each file is read or counted."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from configs.errors import DataError
from peer.prepare.documents import SourceFile
from peer.prepare.listing import Listing, find_files
from peer.prepare.skips import Reason, SkipError, Skips

TEXT = "A text that fills a file.\n\nWith a second paragraph.\n"
RECORDS = '{"text": "one"}\n{"text": "two"}\n'
UMLAUTS = "Die Bäume grünen, und die Straße führt über die Höhe.\n".encode("cp1252")


def fill(root: Path, *names: str, content: str | bytes | None = None) -> Path:
    """Make files with what their names say they hold."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content if content is not None else RECORDS if ".json" in name else TEXT
        raw = raw.encode() if isinstance(raw, str) else raw
        packs = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
        path.write_bytes(packs.get(path.suffix, bytes)(raw))
    return root


def find(*sources: Path | str, **options: object) -> tuple[list[SourceFile], Skips]:
    skips = Skips()
    return find_files([str(source) for source in sources], Listing(**options), skips), skips  # type: ignore[arg-type]


def layout(*sources: Path | str, **options: object) -> dict[str, str]:
    """Return file name → domain, and its split if it has one."""
    files, _ = find(*sources, **options)
    return {file.url.rpartition("/")[2]: f"{file.domain} {file.split or ''}".strip() for file in files}


def refusal(*sources: Path | str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        find(*sources, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(skips: Skips) -> dict[Reason, int]:
    return {reason: skipped.count for reason, skipped in skips.by_reason.items()}


def test_all_kinds_are_found_compressed_or_not(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.md.gz", "c.rst.bz2", "d.jsonl.xz", "e.ndjson", "f.html", "g.py", "h.txt.xz")
    fill(tmp_path, "i.csv", content="text\nfish\n")
    fill(tmp_path, "j.json", content='[{"text": "a"}]')
    fill(tmp_path, "k.json", content=RECORDS)
    fill(tmp_path, "l.tsv.gz", content="text\tkind\nfish\tx\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "m.parquet")
    files, skips = find(tmp_path, extensions=("py",))
    assert [(file.url[-5:], file.form, file.compression) for file in files] == [
        ("a.txt", "text", None),
        ("md.gz", "text", "gzip"),
        ("t.bz2", "text", "bz2"),
        ("nl.xz", "json_lines", "xz"),
        ("djson", "json_lines", None),
        (".html", "html", None),
        ("/g.py", "code", None),
        ("xt.xz", "text", "xz"),
        ("i.csv", "csv", None),
        (".json", "json", None),
        (".json", "json_lines", None),
        ("sv.gz", "tsv", "gzip"),
        ("rquet", "parquet", None),
    ]
    assert counts(skips) == {} and {file.domain for file in files} == {tmp_path.name[:64]}
    assert all(file.size_bytes == Path(file.url).stat().st_size and not file.is_named for file in files)


def test_everything_else_in_a_folder_is_counted_by_reason(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "README.md", "LICENSE", ".gitattributes", ".git/config", "sub/__MACOSX/a.txt")
    fill(tmp_path, "logo.png", "notes.docx", "old.tar.gz", "table.xlsx")
    fill(tmp_path, "empty.txt", "blank.md", "blank.txt.gz", content="")
    fill(tmp_path, "blank.txt", content=" \n\n\t\n")
    fill(tmp_path, "cp1252.txt", content=UMLAUTS)
    fill(tmp_path, "picture.txt", content=b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8)
    fill(
        tmp_path, "pointer.parquet", content="version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    )
    fill(tmp_path, "cut.zip", content=b"PK\x03\x04 and no more")
    fill(tmp_path, "broken.txt.gz", content="x")
    (tmp_path / "broken.txt.gz").write_bytes(b"\x1f\x8b\x08\x00 and no more")
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    files, skips = find(tmp_path)
    assert [Path(file.url).name for file in files] == ["a.txt"]
    assert counts(skips) == {
        Reason.ABOUT: 2,
        Reason.HIDDEN: 3,
        Reason.KIND: 5,
        Reason.BLANK: 4,
        Reason.ENCODING: 2,
        Reason.UNREADABLE: 2,
        Reason.DAMAGED: 2,
    }
    assert skips.by_reason[Reason.ABOUT].size_bytes == 2 * len(TEXT)
    said = " ".join(place for skipped in skips.by_reason.values() for place in skipped.places)
    assert "git lfs pull" in said and "--encoding cp1252" in said and "leads nowhere" in said
    assert str(tmp_path / "notes.docx") in said or str(tmp_path / "logo.png") in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.docx", b"PK\x03\x04\0", "its name must end in .txt"),
        ("notes.log", b"plain text", "--ext .log"),
        ("a.tar.gz", b"\x1f\x8b", "unpack it"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\n", "holds no text"),
        ("a.txt.gz", gzip.compress(b"\n"), "holds no text"),
        ("a.txt", UMLAUTS, "--encoding cp1252"),
        ("a.zip", b"PK", "cannot be unpacked"),
        ("a.txt.gz", b"\xfd\x00\x00\x81\xff", "is no gzip file"),
        ("Makefile", bytes(range(256)), "does not show what it holds"),
        ("corpus.gz", gzip.compress(b"a,b\n1,2\n3,4\n"), "NAME.csv"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_what_is_named_by_itself_and_cannot_be_used_is_an_error(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    fill(tmp_path, "good.txt")
    with pytest.raises(SkipError) as caught:
        find(tmp_path / "good.txt", path)
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "no text was given" in refusal()
    assert "no such file or folder" in refusal(tmp_path / "nowhere.txt")
    assert "no such file or folder" in refusal("memory://nowhere/at/all")
    (tmp_path / "empty").mkdir()
    assert "holds no text; it needs files that end in .txt" in refusal(tmp_path / "empty")
    fill(tmp_path / "odd", "a.xyz")
    assert "a.xyz is of a kind that holds no text" in refusal(tmp_path / "odd")
    fill(tmp_path / "blank", "a.txt", content="\n")
    assert "a.txt is empty" in refusal(tmp_path / "blank")
    assert "no such encoding" in refusal(fill(tmp_path / "good", "a.txt"), encoding="klingon")


def test_the_advice_works(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(UMLAUTS)
    fill(tmp_path, "notes.log", "corpus.txt.gz")
    assert find(tmp_path / "a.txt", encoding="cp1252")[0][0].encoding == "cp1252"
    assert find(tmp_path / "notes.log", extensions=(".log",))[0][0].form == "code"
    fill(tmp_path, "utf8.txt", content="Grüße")
    found = {Path(file.url).name: file.encoding for file in find(tmp_path, encoding="cp1252")[0]}
    assert found["utf8.txt"] == "utf-8" and found["a.txt"] == "cp1252"
    assert "is not in latin-1" in refusal(
        fill(tmp_path, "q.txt", content="“”".encode("cp1252")) / "q.txt", encoding="latin-1"
    )


def test_a_given_encoding_does_not_spoil_unicode_that_begins_plainly(tmp_path: Path) -> None:
    plain = "plain text, line after line\n" * 20_000
    (tmp_path / "a.txt").write_bytes((plain + "Grüße").encode() + b"\n")
    (tmp_path / "b.txt").write_bytes(plain.encode() + UMLAUTS)
    (tmp_path / "c.txt").write_bytes(plain.encode())
    files, _ = find(tmp_path, encoding="cp1252")
    assert [file.encoding for file in files] == ["utf-8", "cp1252", "cp1252"]


def test_contents_count_where_names_lie(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(RECORDS.encode()))
    (tmp_path / "b.txt.gz").write_bytes(TEXT.encode())
    (tmp_path / "c.txt").write_bytes(bz2.compress(os.urandom(300_000).hex().encode()))
    (tmp_path / "corpus.gz").write_bytes(gzip.compress(RECORDS.encode()))
    (tmp_path / "part-00000").write_bytes(TEXT.encode())
    (tmp_path / "part-00001.xz").write_bytes(lzma.compress(b'[{"text": "a"}]'))
    found = {Path(file.url).name: (file.form, file.compression) for file in find(tmp_path)[0]}
    assert found == {
        "a.jsonl": ("json_lines", "gzip"),
        "b.txt.gz": ("text", None),
        "c.txt": ("text", "bz2"),
        "corpus.gz": ("json_lines", "gzip"),
        "part-00000": ("text", None),
        "part-00001.xz": ("json", "xz"),
    }


def test_json_with_long_lines_is_told_apart(tmp_path: Path) -> None:
    long = json.dumps({"text": "x" * 200_000})
    fill(tmp_path, "a.json", content=f"{long}\n{long}\n")
    fill(tmp_path, "b.json", content=long)
    fill(tmp_path, "c.json.gz", content=f"{long}\n{long}\n")
    assert [file.form for file in find(tmp_path)[0]] == ["json_lines", "json", "json_lines"]


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


def test_archives_are_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "corpus.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("corpus/wiki/a.txt", "corpus/wiki/valid.txt", "corpus/news/b.txt.gz", "corpus/README.md", "x.png"):
            archive.writestr(name, gzip.compress(TEXT.encode()) if name.endswith("gz") else TEXT)
    files, skips = find(tmp_path / "corpus.zip")
    assert [(file.url, file.domain, file.split, file.compression) for file in files] == [
        (f"zip://corpus/news/b.txt.gz::{tmp_path}/corpus.zip", "news", None, "gzip"),
        (f"zip://corpus/wiki/a.txt::{tmp_path}/corpus.zip", "wiki", None, None),
        (f"zip://corpus/wiki/valid.txt::{tmp_path}/corpus.zip", "wiki", "heldout", None),
    ]
    assert counts(skips) == {Reason.ABOUT: 1, Reason.KIND: 1} and files[1].size_bytes == len(TEXT)
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("a.txt", TEXT)
    fill(tmp_path, "loose.txt")
    assert {file.split for file in find(tmp_path)[0]} == {None, "train", "heldout"}


def test_links_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "linked.txt")
    root = fill(tmp_path / "texts", "a/b.txt")
    (root / "a" / "up").symlink_to(root)  # a cycle
    (root / "0-link.txt").symlink_to(root / "a" / "b.txt")  # sorted before what it leads to
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "far again").symlink_to(tmp_path / "elsewhere")
    files, skips = find(root)
    assert [(Path(file.url).name, file.domain) for file in files] == [("b.txt", "a"), ("linked.txt", "far")]
    assert counts(skips) == {Reason.LINKED: 3}


def test_a_link_gives_a_name_to_a_file_that_has_none(tmp_path: Path) -> None:
    root = fill(tmp_path, "blobs/4d7a21", content=RECORDS)
    (root / "snapshots").mkdir()
    (root / "snapshots" / "train.jsonl").symlink_to(root / "blobs" / "4d7a21")  # as the cache of the hub has it
    assert [Path(file.url).name for file in find(root)[0]] == ["train.jsonl"]


def test_a_source_that_is_in_another_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, "texts/wiki/a.txt", "b.txt")
    assert "holds no text" in refusal(tmp_path / "texts", tmp_path / "texts" / "wiki")
    files, skips = find(tmp_path / "b.txt", tmp_path / "texts", tmp_path / "b.txt")
    assert len(files) == 2 and counts(skips) == {Reason.LINKED: 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_what_may_not_be_read_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "secret.txt", "closed/b.txt")
    (tmp_path / "secret.txt").chmod(0)
    (tmp_path / "closed").chmod(0)
    files, skips = find(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    assert len(files) == 1 and counts(skips) == {Reason.UNREADABLE: 2}


def test_the_unit_is_that_of_all_files_of_a_domain(tmp_path: Path) -> None:
    lines = "\n".join(f"Sentence {number} says something of its own, whatever it is." for number in range(200))
    fill(tmp_path / "t", "lines/a.txt", "lines/b.txt", content=lines)
    fill(tmp_path / "t", "paragraphs/a.txt", content="\n\n".join([TEXT] * 50))
    fill(tmp_path / "t", *(f"files/{number}.txt" for number in range(25)))
    files, _ = find(tmp_path / "t")
    assert {(file.domain, file.unit) for file in files} == {("lines", "line"), ("paragraphs", "paragraph")} | {
        ("files", "file")
    }
    assert {file.unit for file in find(tmp_path / "t", unit="paragraph")[0]} == {"paragraph"}


def test_a_domain_column_needs_columns(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "b.txt")
    assert "use JSON lines or Parquet" in refusal(tmp_path / "b.txt", has_domain_column=True)
    files, skips = find(tmp_path, has_domain_column=True)
    assert len(files) == 1 and counts(skips) == {Reason.COLUMN: 1}


def test_remote_folders_are_listed_like_local_ones(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    root = fill(
        tmp_path / "texts", "wiki/train.txt", "wiki/valid.txt.gz", "news/a.jsonl", "README.md", "logo.png", "e.txt"
    )
    fill(root, "e.txt", content="")
    with zipfile.ZipFile(root / "b.zip", "w") as archive:
        archive.writestr("c.txt", TEXT)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            fs.pipe(f"/listing/texts/{path.relative_to(root)}", path.read_bytes())
    local, local_skips = find(root)
    remote, remote_skips = find("memory://listing/texts")
    assert [file.url.replace("memory://listing/texts", str(root)) for file in remote] == [file.url for file in local]
    assert [(file.domain, file.split, file.form, file.size_bytes) for file in remote] == [
        (file.domain, file.split, file.form, file.size_bytes) for file in local
    ]
    assert counts(local_skips) == counts(remote_skips)
    assert find("memory://listing/texts/wiki/train.txt")[0][0].is_named
    assert find(f"file://{root}")[0] == local


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="fish")
    for name in ("texts/wiki/a.txt", "texts/wiki/valid.jsonl.gz", "texts/README.md"):
        content = gzip.compress(RECORDS.encode()) if name.endswith("gz") else TEXT.encode()
        client.put_object(Bucket="fish", Key=name, Body=content)
    yield
    server.stop()


@pytest.mark.usefixtures("s3")
def test_an_object_store_is_read_without_more_packages() -> None:
    assert layout("s3://fish/texts") == {"a.txt": "wiki", "valid.jsonl.gz": "wiki heldout"}
    assert "no such file or folder" in refusal("s3://fish/nowhere")


def test_very_many_small_files_cost_little(tmp_path: Path) -> None:
    for number in range(4000):
        folder = tmp_path / str(number // 500)
        folder.mkdir(exist_ok=True)
        (folder / f"article-{number}.txt").write_text(TEXT * 100)
    find(tmp_path)
    begun = time.process_time()
    files, _ = find(tmp_path)
    assert len(files) == 4000 and time.process_time() - begun < 0.6  # 1.5 s for 20,000, with room for a busy machine
    shutil.rmtree(tmp_path)
