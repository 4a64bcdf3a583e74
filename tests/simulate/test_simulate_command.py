"""`shoal simulate`: what it prints, and what it says of a mistake."""

import json

import pytest

from peer.commands.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "1"], "peers = 1"),
        (["--peers", "200000"], "peers = 200000"),
        (["--peers", "many"], "--peers"),
        (["--rounds", "0"], "rounds = 0"),
        (["--group-size", "1"], "group_size = 1"),
        (["--fragments", "3"], "must be a power of two"),
        (["--fragments", "256"], "fragments = 256"),
        (["--pull-clip", "0"], "pull_clip = 0"),
        (["--churn", "1.5"], "churn = 1.5"),
        (["--loss", "nan"], "loss = nan"),
        (["--delay-ms", "-1"], "delay_ms = -1"),
        (["--codec", "zip"], "must be one of float32, bfloat16, int8, int4, sparse"),
        (["--bogus"], "No such option"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("shoal: ") and output.err.count("\n") == 1
    assert said in output.err


def test_prints_a_line_for_each_round_and_theory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--peers", "16", "--rounds", "2", "--loss", "0.1", "--delay-ms", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["round", "spread", "theory"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "by theory: 1.0" in lines[3]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--peers", "40", "--rounds", "2", "--churn", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scenario"]["peers"] == 40 and told["scenario"]["churn"] == 0.1
    assert [figures["round"] for figures in told["rounds"]] == [1, 2]
    assert told["rounds"][1]["spread"] > 0 and told["rounds"][1]["lookup_rpcs"] > told["rounds"][1]["lookups"] >= 2


def test_everybody_leaves_and_nothing_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    for trouble in ("--churn", "--loss"):
        for peers in ("2", "4", "20"):
            assert main(["simulate", "--peers", peers, "--rounds", "3", trouble, "1"]) == 0
    assert "nan" not in capsys.readouterr().out
