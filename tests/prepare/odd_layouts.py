"""Odd inputs by how they lie there: folders, splits, shards, links, names, addresses."""

import os
from collections.abc import Sequence
from pathlib import Path

from odd_entries import (
    Odd,
    Remedy,
    also,
    filled,
    lines_of,
    paragraphs,
    passages,
    put,
    removed,
    renamed,
    sentences,
)
from odd_files import in_memory, linked, parquet

COD, EEL, RAY = passages("Zander"), passages("Roach"), passages("Burbot")
SHORT, OTHERS = sentences("Dory", 300), sentences("Hake", 100)
LICENCE, CARD = "Permission is granted.\n\nTo all.\n", "---\nlicense: mit\n---\n# A data set\n\nOf texts.\n"
BOTH = {"sea": COD, "river": EEL}
TWO = {"in/sea/a.txt": paragraphs(COD), "in/river/a.txt": paragraphs(EEL)}


def _special(place: Path) -> None:
    put(place / "in" / "a.txt", paragraphs(COD))
    os.mkfifo(place / "in" / "pipe.txt")
    (place / "in" / "zero.txt").symlink_to("/dev/zero")


def _hard_linked(place: Path) -> None:
    put(place / "in" / "a.txt", paragraphs(COD))
    os.link(place / "in" / "a.txt", place / "in" / "b.txt")


def _not_unicode(place: Path) -> None:
    (place / "in").mkdir()
    Path(os.fsdecode(os.fsencode(place) + b"/in/caf\xe9.txt")).write_text(paragraphs(COD))


def _many(count: int, texts: Sequence[str]) -> dict[str, str]:
    return {f"in/folder-{n}/{at}.txt": text for n in range(count) for at, text in enumerate(texts[n::count])}


SEVENTY = sentences("Char", 700)

LAYOUTS = [
    Odd("sub-folders are domains", filled(TWO), BOTH),
    Odd("sub-folders and files beside them", filled(TWO | {"in/c.txt": paragraphs(RAY)}), {**BOTH, "in": RAY}),
    Odd(
        "folders in folders",
        filled(
            {
                "in/sea/deep/er/a.txt": paragraphs(COD),
                "in/sea/b.txt": paragraphs(RAY),
                "in/river/x/a.txt": paragraphs(EEL),
            }
        ),
        {"sea": [*COD, *RAY], "river": EEL},
    ),
    Odd(
        "an empty sub-folder",
        also(filled(TWO), lambda place: (place / "in" / "none" / "at all").mkdir(parents=True)),
        BOTH,
    ),
    Odd("several sources are a domain each", filled(TWO), {"sea": COD, "a": EEL}, ("in/sea", "in/river/a.txt")),
    Odd(
        "the same names in several sources",
        filled({"a/train.txt": paragraphs(COD), "b/train.txt": paragraphs(EEL)}),
        {"a": COD, "b": EEL},
        ("a/train.txt", "b/train.txt"),
    ),
    Odd(
        "the same names of sources and of the folders that they are in",
        filled({"x/in/a.txt": paragraphs(COD), "y/in/a.txt": paragraphs(EEL)}),
        {"in": COD, "eel": EEL},
        ("x/in/a.txt", "y/in/a.txt"),
        refused="rename one of them",
        remedy=Remedy(
            "rename one of them", mend=renamed("y/in/a.txt", "y/in/eel.txt"), sources=("x/in", "y/in/eel.txt")
        ),
    ),
    Odd(
        "sub-folders whose names are the same as domains",
        filled({"in/deep sea/a.txt": paragraphs(COD), "in/deep-sea/a.txt": paragraphs(EEL)}),
        {"deep-sea": COD, "eel": EEL},
        refused="would both be the domain 'deep-sea'",
        remedy=Remedy("rename one of them", mend=renamed("in/deep-sea", "in/eel")),
    ),
    Odd(
        "one source in another, and named twice",
        filled(TWO),
        {"in": [*COD, *EEL]},
        ("in", "in/sea/a.txt"),
        skipped={"LINKED": (1, 0)},
    ),
    Odd(
        "what Hadoop leaves",
        filled(
            {
                "in/part-00000": "\n".join(SHORT),
                "in/part-00001": "\n".join(OTHERS),
                "in/_SUCCESS": "",
                "in/.part-00000.crc": "crc",
            }
        ),
        {"in": [*SHORT, *OTHERS]},
        skipped={"HIDDEN": (2, 3)},
    ),
    Odd(
        "licence, card and citation",
        filled(TWO | {"in/LICENSE": LICENCE, "in/sea/README.md": CARD, "in/CITATION.cff": "cff"}),
        BOTH,
        skipped={"ABOUT": (3, len(LICENCE) + len(CARD) + 3)},
    ),
    Odd("a README that is named by itself", filled({"README.md": paragraphs(COD)}), {"README": COD}, ("README.md",)),
    Odd(
        "hidden files and folders",
        filled(TWO | {"in/.git/config": "[core]", "in/sea/.a.txt.swp": "x", "in/.DS_Store": "y"}),
        BOTH,
        skipped={"HIDDEN": (3, 8)},
    ),
    Odd(
        "the clone of a dataset's repository",
        also(
            filled(
                {
                    "in/README.md": CARD,
                    "in/.gitattributes": "*.parquet lfs\n",
                    "in/img/logo.png": b"\x89PNG",
                    "in/.git/HEAD": "ref",
                }
            ),
            parquet("in/data/train-00000-of-00001.parquet", {"text": SHORT}),
            parquet("in/data/test-00000-of-00001.parquet", {"text": OTHERS}),
        ),
        {"in": [*SHORT, *OTHERS]},
        heldout={"in": OTHERS},
        skipped={"ABOUT": (1, len(CARD)), "HIDDEN": (2, 17), "KIND": (1, 4)},
    ),
    Odd(
        "the clone of a repository whose large files were not fetched",
        filled(
            {
                "in/README.md": CARD,
                "in/data/train.jsonl": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            }
        ),
        {"in": SHORT},
        refused="a pointer to the file, of Git LFS",
        remedy=Remedy("git lfs pull", mend=filled({"in/data/train.jsonl": lines_of(SHORT)})),
        skipped={"ABOUT": (1, len(CARD))},
    ),
    Odd(
        "a folder that is linked to",
        also(filled({"in/a.txt": paragraphs(COD), "far/b.txt": paragraphs(EEL)}), linked("in/river", "../far")),
        {"in": COD, "river": EEL},
    ),
    Odd(
        "a link that leads nowhere",
        also(filled(TWO), linked("in/gone.txt", "nowhere.txt")),
        BOTH,
        skipped={"UNREADABLE": (1, 0)},
    ),
    Odd(
        "links in a circle",
        also(filled(TWO), linked("in/sea/up", ".."), linked("in/self", "self")),
        BOTH,
        skipped={"LINKED": (1, 0), "UNREADABLE": (1, 0)},
    ),
    Odd(
        "a link to a file beside it",
        also(filled(TWO), linked("in/sea/b.txt", "a.txt")),
        BOTH,
        skipped={"LINKED": (1, 0)},
    ),
    Odd("two links to one file", _hard_linked, {"in": COD}, skipped={"LINKED": (1, 0)}),
    Odd("a source that is a link", also(filled({"far/a.txt": paragraphs(COD)}), linked("in", "far")), {"in": COD}),
    Odd("a pipe and a device", _special, {"in": COD}, skipped={"KIND": (2, 0)}),
    Odd(
        "names with spaces, line ends, quotes and other scripts",
        filled(
            {
                "in/die See/a\nb.txt": paragraphs(COD),
                "in/河/'q\"%20#?*[x].txt": paragraphs(EEL),
                "in/-r/--out.txt": paragraphs(RAY),
            }
        ),
        {"die-See": COD, "河": EEL, "r": RAY},
    ),
    Odd("a name that is no Unicode", _not_unicode, {"in": COD}),
    Odd(
        "folders that are called like files",
        filled({"in/sea.txt/a.txt": paragraphs(COD), "in/river.jsonl/b.txt": paragraphs(EEL)}),
        {"sea.txt": COD, "river.jsonl": EEL},
    ),
    Odd(
        "archives in strange places, with colons in their names",
        filled({"in/a::b.txt": paragraphs(COD), "in/zip:x.txt": paragraphs(EEL)}),
        {"in": [*COD, *EEL]},
    ),
    Odd(
        "seventy sub-folders",
        filled(_many(70, SEVENTY)),
        {"cluster": SEVENTY},
        refused="70 sub-folders of in would be a domain each, and there can be 64",
        remedy=Remedy("--domains 8", ("--domains", "8")),
        clusters=8,
    ),
    Odd(
        "sixty-four sub-folders",
        filled(_many(64, sentences("Huchen", 1280))),
        {f"folder-{n}": sentences("Huchen", 1280)[n::64] for n in range(64)},
    ),
    Odd(
        "seventy sub-folders below one",
        filled({f"in/all/{n}/a.txt": text for n, text in enumerate(SHORT[:70])}),
        {"all": SHORT[:70]},
    ),
    Odd(
        "a file without an extension",
        filled({"in/Text": paragraphs(COD), "in/b.txt": paragraphs(EEL)}),
        {"in": EEL},
        skipped={"KIND": (1, len(paragraphs(COD)))},
    ),
    Odd("a file without an extension, named by itself", filled({"Text": paragraphs(COD)}), {"Text": COD}, ("Text",)),
    Odd("an address of this machine", filled(TWO), BOTH, ("file://{place}/in",)),
    Odd(
        "an address in memory",
        in_memory({"in/sea/a.txt": paragraphs(COD), "in/river/b.jsonl": lines_of(EEL)}),
        BOTH,
        ("memory://odd/in",),
    ),
    Odd(
        "an address of a compressed file",
        in_memory({"cod.csv": "text\n" + "".join(f'"{text}"\n' for text in SHORT)}),
        {"cod": SHORT},
        ("memory://odd/cod.csv",),
    ),
    Odd("a path with a slash at its end", filled(TWO), BOTH, ("./in//",)),
    Odd("the folder where one is", filled({"a.txt": paragraphs(COD)}), {"place": COD}, (".",)),
    Odd(
        "no file at all",
        filled({"other/a.txt": paragraphs(COD)}),
        {"other": COD},
        ("oter",),
        refused="no such file or folder: oter",
        remedy=Remedy("check the path", sources=("other",)),
    ),
    Odd(
        "a folder that the corpus lies in already",
        filled({"in/a.txt": paragraphs(COD), "out/corpus.json": "{}"}),
        {"in": COD},
        refused="out exists and is not empty",
        remedy=Remedy(
            "choose another place or delete it",
            mend=also(removed("out/corpus.json"), lambda place: (place / "out").rmdir()),
        ),
    ),
]
