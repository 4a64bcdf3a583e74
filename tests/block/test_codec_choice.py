"""When offers become coarse, and fine again."""

from peer.block.codec_choice import COARSE, LATE_ROUNDS, MAX_TRY_AGAIN_ROUNDS, TRY_AGAIN_ROUNDS, CodecChoice


def test_offers_that_come_too_late_again_and_again_become_coarse() -> None:
    choice = CodecChoice("int4")
    for _ in range(5):  # now and then is no reason
        assert not choice.ended(is_sealed=False) and not choice.ended(is_sealed=True)
    told = [choice.ended(is_sealed=False) for _ in range(LATE_ROUNDS)]
    assert told[:-1] == [""] * (LATE_ROUNDS - 1) and "3 of them came too late as int4" in told[-1]
    assert choice.codec == COARSE and choice.is_coarse


def test_the_run_s_codec_is_tried_again_ever_more_rarely() -> None:
    choice, waits, waited = CodecChoice("int4"), [], 0
    for _ in range(6000):
        if choice.ended(is_sealed=choice.is_coarse):
            waits.append(waited)
            waited = 0
        waited += choice.is_coarse
    assert [wait for wait in waits if wait][:4] == [TRY_AGAIN_ROUNDS * 2**n for n in range(4)]
    assert max(waits) == MAX_TRY_AGAIN_ROUNDS


def test_a_link_that_became_better_is_used() -> None:
    choice = CodecChoice("int4")
    for _ in range(LATE_ROUNDS):
        choice.ended(is_sealed=False)
    told = [choice.ended(is_sealed=True) for _ in range(TRY_AGAIN_ROUNDS + 100)]
    assert [index for index, text in enumerate(told) if text] == [TRY_AGAIN_ROUNDS - 1]
    assert choice.codec == "int4"


def test_a_sparse_run_has_nothing_coarser() -> None:
    choice = CodecChoice(COARSE)
    assert not any(choice.ended(is_sealed=False) for _ in range(10)) and not choice.is_coarse
