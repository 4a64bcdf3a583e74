from pathlib import Path

import pytest

from configs.errors import StateError
from configs.files import write_json
from configs.state_format import FORMAT_FILE, STATE_FORMAT, check_format, write_format


def test_this_and_earlier_formats_are_read(tmp_path: Path) -> None:
    check_format(tmp_path)  # of the first, which wrote no such file
    write_format(tmp_path, "0.1.0")
    check_format(tmp_path)
    write_json(tmp_path / FORMAT_FILE, {"format": STATE_FORMAT, "shoal": "9.0", "a_new_key": 1})
    check_format(tmp_path)


def test_a_later_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_json(tmp_path / FORMAT_FILE, {"format": STATE_FORMAT + 1, "shoal": "9.0\x1b[31m"})
    with pytest.raises(StateError) as refused:
        check_format(tmp_path)
    said = str(refused.value)
    assert f"written by shoal 9.0·[31m in format {STATE_FORMAT + 1}; this version reads up to {STATE_FORMAT}" in said
    assert "pip install -U shoal" in said and "--state-dir" in said


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}', '{"format": "2"}'])
def test_a_damaged_one_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / FORMAT_FILE).write_text(content)
    with pytest.raises(StateError, match=FORMAT_FILE):
        check_format(tmp_path)
