from protocols.sealing import Mark, compare, seal

A, B, C, D = "abcd"


def test_an_offer_counts_when_more_than_half_of_the_view_names_it() -> None:
    lists = {A: {A: "1", B: "2"}, B: {A: "1", B: "2", C: "3"}, C: {C: "3"}}
    outcome = seal((A, B, C), lists)
    assert outcome.offers == {A: "1", B: "2", C: "3"}
    assert outcome.reason == "sealed 3 of 3"


def test_two_offers_of_one_peer_do_not_add_up() -> None:
    outcome = seal((A, B, C), {A: {A: "1"}, B: {A: "other"}, C: {}})
    assert outcome.is_skipped


def test_a_round_is_skipped_when_fewer_than_half_are_heard() -> None:
    assert seal((A, B, C), {A: {A: "1", B: "2", C: "3"}}).is_skipped
    assert "heard 1 of 3" in seal((A, B, C), {A: {A: "1"}}).reason


def test_one_of_two_asleep_skips() -> None:
    assert seal((A, B), {A: {A: "1"}}).is_skipped


def test_strangers_have_no_voice() -> None:
    lists = {A: {A: "1", "x": "9"}, B: {A: "1", "x": "9"}, "x": {"x": "9"}}
    assert seal((A, B), lists).offers == {A: "1"}


def chain(*digests: str) -> list[Mark]:
    return [Mark(version, digest) for version, digest in enumerate(digests)]


def test_equal_histories_need_nothing() -> None:
    standing = compare(A, {A: chain("p", "q"), B: chain("p", "q")})
    assert standing.follow is None and not standing.merge


def test_who_is_late_follows_whoever_went_on() -> None:
    histories = {A: chain("p"), B: chain("p", "q"), C: chain("p")}
    assert compare(A, histories).follow == Mark(1, "q")
    assert compare(A, histories).sources == (B,)
    assert compare(B, histories).follow is None


def test_of_histories_that_parted_the_majority_is_followed() -> None:
    histories = {A: chain("p", "x"), B: chain("p", "q"), C: chain("p", "q")}
    assert compare(A, histories).follow == Mark(1, "q")
    assert compare(B, histories).follow is None


def test_without_a_majority_all_compute_the_same_merge() -> None:
    histories = {A: chain("p", "x"), B: chain("p", "x"), C: chain("p", "q"), D: chain("p", "q")}
    merges = {compare(member, histories).merge for member in (A, B, C, D)}
    assert merges == {((Mark(1, "q"), (C, D)), (Mark(1, "x"), (A, B)))}


def test_members_that_contradict_each_other_change_nothing() -> None:
    liar = [Mark(1, "q"), Mark(0, "p")]
    assert compare(A, {A: chain("p", "q"), B: liar}).follow is None
