import re

from prometheus_client.parser import text_string_to_metric_families
from status_example import example

from peer.http.metrics import render


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_every_number_is_the_status_own() -> None:
    status = example(1).model_copy(update={"skipped": {"unheard": 3}, "warnings": ["alone"]})
    found = samples(render(status).decode())
    assert found["shoal_rounds_skipped_total", (("cause", "unheard"),)] == 3
    assert found["shoal_warnings", ()] == 1
    assert found["shoal_age_tokens", ()] == status.age
    assert found["shoal_tokens_total", ()] == status.peers[0].tokens
    assert found["shoal_sent_bytes_total", ()] == status.peers[0].bytes_out
    assert found["shoal_phase", (("phase", "parted"),)] == 1
    assert found["shoal_phase", (("phase", "common"),)] == 0
    assert found["shoal_block_age_tokens", (("block", "trunk"),)] == status.blocks[0].age


def test_what_is_not_known_is_left_out() -> None:
    status = example().model_copy(update={"eta_s": None, "peers": []})
    text = render(status).decode()
    assert "shoal_eta_seconds" not in text
    assert "shoal_loss" not in text


def test_a_hostile_name_cannot_add_lines() -> None:
    status = example()
    status.run_name = 'a"} 1\nforged_metric 1'
    assert not re.search(r"^forged_metric", render(status).decode(), re.MULTILINE)
