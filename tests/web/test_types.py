import json
import re

from peer.web.generate_types import FILE, typescript


def test_the_pages_types_are_those_of_the_models() -> None:
    assert FILE.read_text(encoding="utf-8") == typescript(), "run: python -m peer.web.generate_types"


def test_a_field_comes_out_as_typescript_has_it() -> None:
    text = typescript()
    for line in (
        'role: "holder" | "keeper" | "reader";',
        "up_mbit: number | null;",
        "losses: [number, number][];",
        "held_out: Record<string, Record<string, Point[]>>;",
        "sectors: Sector[];",
        "is_me: boolean;",
    ):
        assert f"  {line}\n" in text


def test_the_lock_names_no_registry_and_every_package_has_its_hash() -> None:
    lock = json.loads((FILE.parent.parent / "package-lock.json").read_text())
    packages = {name: facts for name, facts in lock["packages"].items() if name}
    assert packages
    assert not [name for name, facts in packages.items() if "resolved" in facts]
    assert all(re.match("sha512-", facts["integrity"]) for facts in packages.values())
