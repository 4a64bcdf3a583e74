"""A task from its file to its scores and answers: a tiny model learns it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tasks import mixed_corpus, model_spec, train

from configs.run import InnerSpec, RoundSpec, RunSpec, StrategySpec
from peer.commands.main import main
from peer.corpus.data import Corpus
from peer.fused.fuse import fuse
from peer.fused.parts import Parts


def test_a_task_is_learnt_fused_scored_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = mixed_corpus(tmp_path)
    spec = RunSpec(
        total_tokens=10**6,
        model=model_spec(corpus, hidden_size=48),
        strategy=StrategySpec(kind="replicas"),
        inner=InnerSpec(learning_rate=0.01, batch_tokens=512),
        rounds=RoundSpec(tick_seconds=1, double_tokens=1000),
        genesis=0,
        tokenizer_sha256=corpus.info.tokenizer_sha256,
        end_of_text=corpus.info.end_of_text,
    )
    own = Corpus(corpus.path, corpus.info.model_copy(update={"domains": corpus.info.domains[:1]}))
    flat, losses = train(own, spec.model, 120)
    assert np.mean(losses[-5:]) < 0.2 * losses[0]
    counts = corpus.all_counts()
    parts = Parts(spec, {"model": flat}, counts, corpus.tokenizer_json(), corpus.info.task_format)
    for form in ("routed", "llama"):
        fuse(parts, tmp_path / form, form)  # type: ignore[arg-type]
        command = ["eval", str(tmp_path / form), "--data", corpus.path.as_uri(), "--metrics", "--limit", "8", "--json"]
        assert main(command) == 0
        found = json.loads(capsys.readouterr().out)
        task = found["tasks"]["colours"]
        assert task["examples"] == 8 and set(found["tasks"]) == {"colours"}
        assert set(task["scores"]) == {
            *("ROUGE-1", "ROUGE-2", "ROUGE-L", "BLEU", "chrF", "exact match", "F1", "accuracy")
        }
        assert found["loss"]["colours"] < 0.2 * losses[0]
        assert task["scores"]["exact match"]["value"] == task["scores"]["accuracy"]["value"] == 100
        assert main(["generate", str(tmp_path / form), "blue fish 7", "--temperature", "0"]) == 0
        assert capsys.readouterr().out == "it is blue\n"
    assert main(command[:-1]) == 0
    printed = capsys.readouterr().out
    assert "colours, 8 examples" in printed and "exact match" in printed
    assert (
        re.search(r"input +\S+ fish|cloud", printed) and "reference  it is " in printed and "answer  it is " in printed
    )
    beside = [*command[:-1], "--base", str(tmp_path / form)]
    assert main(beside) == 0
    printed = capsys.readouterr().out
    (line,) = [line.split() for line in printed.splitlines() if line.startswith("accuracy")]
    assert float(line[1]) == float(line[5]) == 100 and float(line[6]) < 100, "the model, its base, the commonest option"
    assert main([*beside[:4], *beside[5:]]) == 2
    assert "give --metrics, too" in capsys.readouterr().err
    for arguments, said in (
        (["generate", str(tmp_path / form), " "], "the input is empty"),
        (["generate", str(tmp_path / form), "fish " * 40], "shorten the input"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err
    assert main(["generate", str(tmp_path / form), "fish", "--no-task", "--max-tokens", "1"]) == 0
    assert capsys.readouterr().out.startswith("fish")
    card = (tmp_path / form / "task.json").read_text()
    (tmp_path / form / "task.json").write_text(card.replace("###", "=>"))
    assert main(command) == 2
    assert "as the model was trained, with --prompt-format '{input}\\n\\n=>" in capsys.readouterr().err
    (tmp_path / form / "task.json").write_text("{}")
    assert main(command) == 2
    assert "task.json is damaged" in capsys.readouterr().err
    (tmp_path / form / "task.json").unlink()
    assert main(["generate", str(tmp_path / form), "fish", "--task"]) == 2
    assert "not trained on a task" in capsys.readouterr().err
