"""The language model's training runs as it will run on GPUs, only smaller: no option exists in a dry run alone."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.pocket import lm_batches, lm_step, ranks, run, tokenise, train_lm, warm_start
from scripts.pocket.task import Dialogue, Sound, Task, Turn
from voiceagent.models.step_audio2.checkpoint import load_step_audio2
from voiceagent.models.step_audio2.mel import adapter_rows, encoder_rows
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.speech_tokenizer import SpeechTokenizer
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.units import MODEL_RATE

ROOT = Path(__file__).resolve().parents[2]


def _bank(folder: Path, tag: str, items: list[tuple[str, str]]) -> None:
    rng = np.random.default_rng(len(tag))
    waves = [(3000 * rng.standard_normal(8000 + 900 * i)).astype(np.int16) for i in range(len(items))]
    np.save(folder / f"{tag}_0.npy", np.concatenate(waves))
    lengths = [len(wave) for wave in waves]
    index = {
        "items": [{"text": text, "voice": "test", "kind": kind} for text, kind in items],
        "shard": [0] * len(items),
        "offset": np.cumsum([0, *lengths[:-1]]).tolist(),
        "length": lengths,
        "shards": 1,
        "rate": MODEL_RATE,
    }
    (folder / f"{tag}.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    turns = [
        Turn(Sound("hello"), "hi.", "greeting"),
        Turn(Sound("", kind="noise"), "sorry?", "unclear"),
        Turn(Sound("what is one plus one"), "two.", "sum"),
    ]
    dialogue = asdict(Dialogue("sum", "Be brief.", None, turns, history=[["hello", "hi."]]))
    tasks = [
        asdict(Task("s2st", "Into Spanish.", Sound("blue"), "", "azul.", True, language="es")),
        asdict(Task("t2tt", "Into Spanish.", None, "blue", "azul", False, language="es")),
        asdict(Task("think", "Think.", None, "one plus one", "two.", True, thought="one and one are two.")),
    ]
    corpus = {
        "train": [dialogue],
        "test": [dialogue],
        "tasks": tasks,
        "task_test": tasks,
        "generic": ["blue sky"],
        "generic_test": ["red sea"],
        "agent_generic": ["a house."],
        "agent_spanish": [],
    }
    (folder / "corpus.json").write_text(json.dumps(corpus))
    said = [(turn.heard.text, turn.heard.kind) for turn in turns] + [("blue", "speech")]
    _bank(folder, "caller", [*said, ("blue sky", "speech")])
    for tag in ("test_seen", "test_new"):
        _bank(folder, tag, [*said, ("red sea", "speech")])
    _bank(folder, "agent", [(text, "speech") for text in ("hi.", "sorry?", "two.", "a house.")])
    _bank(folder, "agent_es", [("azul.", "speech")])
    index = json.loads((folder / "agent_es.json").read_text())
    index["items"][0]["language"] = "es"
    (folder / "agent_es.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def tokenised(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with the agent's ids, made by the script."""
    out = tmp_path_factory.mktemp("ck")
    _script("tokenise", "--data", data, "--out", out, "--procs", 1)
    return out


def _script(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, f"scripts/pocket/{name}.py", *map(str, arguments)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_argument_that_is_read_exists_without_dry() -> None:
    tree = ast.parse(Path(train_lm.__file__).read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "args")
            or (isinstance(node.value, ast.Attribute) and node.value.attr == "args")
        )
    }
    real = vars(train_lm.parse_args(["--data", "d", "--out", "o"]))
    dry = vars(train_lm.parse_args(["--data", "d", "--out", "o", "--dry"]))
    assert read <= set(real)
    assert set(real) == set(dry)
    assert all(value is not None for name, value in real.items() if name != "init")


def test_ids_are_those_of_the_runtime(data: Path, tokenised: Path, pocket_dir: Path) -> None:
    with np.load(tokenised / "agent_tokens.npz") as saved:
        tokens, offsets = saved["tokens"], saved["offsets"]
    runtime = SpeechTokenizer(pocket_dir / "token2wav" / "speech_tokenizer_v2_25hz.onnx")
    tokenise._open(data, "agent")
    ids = [runtime.encode(tokenise.wave_of(item).numpy()) for item in range(4)]
    assert np.diff(offsets).tolist() == [len(row) for row in ids]
    # Training keeps features in half precision, so a value on an edge may fall to the other side.
    assert np.mean(tokens == np.concatenate(ids)) > 0.9


@pytest.fixture(scope="module")
def small(pocket_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text tokenizer, and the configuration of a much smaller network."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pocket_dir / name, folder / name)
    config = json.loads((pocket_dir / "config.json").read_text())
    config["text_config"] |= {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config["text_config"] |= {
        "num_key_value_heads": 1,
        "num_attention_groups": 1,
        "head_dim": 16,
        "intermediate_size": 32,
    }
    config["audio_encoder_config"] |= {"n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 1}
    config["audio_encoder_config"] |= {"llm_dim": 32, "adapter_hidden": 32}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_two_ranks_train_for_real_and_resume(data: Path, tokenised: Path, small: Path) -> None:
    first = StepAudio2(train_lm.StepAudio2Config.from_folder(small)).state_dict()
    torch.save({"model": {name: value.half() for name, value in first.items()}}, tokenised / "first.pt")
    sizes = ("--tokens", 400, "--hear-frames", 300, "--pool", 6, "--workers", 1, "--versions", 2)
    common = ("--data", data, "--out", tokenised, "--assets", small, *sizes, "--questions", 1)
    said = _script(
        "train_lm", *common, "--gpus", 2, "--init", tokenised / "first.pt",
        "--hear-steps", 12, "--steps", 11, "--seconds", 1e6, "--save-seconds", 0, "--glance-seconds", 0,
    )  # fmt: skip
    assert "begins with the weights" in said
    assert "so far test_seen" in said
    assert "trained 11 steps" in said
    assert said.count("joint 1 ") == 1
    assert set(json.loads((tokenised / "lm_eval.json").read_text())) == {"test_seen", "test_new"}
    said = _script("train_lm", *common, "--resume", "--seconds", 1e6, "--stop-after", 0)
    assert "resumed at step 11" in said
    assert "trained 11 steps" in said
    run.shrink(tokenised)
    weights = warm_start.weights_of(tokenised / "lm16.pt")
    assert set(weights) == set(first)
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert not torch.equal(weights["lm_head.weight"], first["lm_head.weight"])
    assert set(torch.load(tokenised / "ctc16.pt", weights_only=True)) == {"weight", "bias"}


def test_audio_of_a_batch_goes_where_inference_puts_it(pocket_dir: Path) -> None:
    """`Learner` encodes in groups of rounded shapes; the embeddings must be those of each audio alone."""
    model = load_step_audio2(pocket_dir)
    frames = np.array([61, 240, 33, 118, 90])
    mels = [torch.randn(128, int(count)) for count in frames]

    class Heard:
        def __init__(self) -> None:
            self.frames = frames

        def batch(self, numbers: lm_step.Ints) -> tuple[torch.Tensor, torch.Tensor]:
            width = int(frames[numbers].max())
            padded = [torch.nn.functional.pad(mels[n], (0, width - mels[n].shape[1])) for n in numbers]
            return torch.stack(padded), torch.from_numpy(frames[numbers])

    learner = lm_step.Learner.__new__(lm_step.Learner)
    learner.model, learner.device, learner.hearing = model, torch.device("cpu"), Heard()  # type: ignore[assignment]
    learner.blank_out, learner._encode = 0.0, model.encoder
    counts = [adapter_rows(encoder_rows(int(count))) for count in frames]
    starts = np.cumsum([1, *(count + 2 for count in counts[:-1])])
    patches = lm_step.runs(starts, np.array(counts))
    batch = lm_batches.Batch(
        torch.zeros(1, int(patches[-1]) + 3, dtype=torch.int32),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0),
        torch.from_numpy(patches),
        torch.arange(5),
    )
    groups = [np.array([2, 0, 4]), np.array([3, 1])]
    with torch.no_grad():
        heard = [learner.hear(group) for group in groups]
        embeds = learner._fill_in(torch.zeros(1, batch.ids.shape[1], 384), heard, groups, batch)
        assert int(embeds.abs().sum(-1).gt(0).sum()) == len(patches)
        for mel, count, start in zip(mels, counts, starts, strict=True):
            alone, _ = model.adapter(*model.encoder(mel[None], torch.tensor([mel.shape[1] - 2])))
            torch.testing.assert_close(
                embeds[0, start : start + count], alone[0, :count], rtol=1e-3, atol=1e-4
            )


def test_the_compiled_form_is_the_model(pocket_dir: Path) -> None:
    model = load_step_audio2(pocket_dir)
    embeds = torch.randn(2, 9, 384)
    learner = lm_step.Learner.__new__(lm_step.Learner)
    learner.model = model
    with torch.no_grad():
        assert torch.equal(lm_step.think(model.model, embeds, *learner._rotary(embeds)), model.model(embeds))


def test_audio_is_grouped_by_length() -> None:
    frames = np.random.default_rng(0).integers(50, 900, 100)
    groups = lm_step.length_groups(frames)
    assert sorted(np.concatenate(groups).tolist()) == list(range(100))
    assert all(frames[a].max() <= frames[b].min() for a, b in pairwise(groups))
    assert lm_step.length_groups(frames[:0]) == []


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    descent = ranks.Descent(torch.optim.SGD([weight], 1.0), ranks.Ranks(0, 1, torch.device("cpu")))
    descent.step(weight.sum() * float("nan"))
    assert torch.equal(weight.detach(), torch.ones(3))
    descent.step(100 * weight[0])
    torch.testing.assert_close(weight.detach(), torch.tensor([0.0, 1.0, 1.0]))


def test_a_failed_stage_shows_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lm.log").write_text("Traceback\nno attribute ctc_min\n")
    (tmp_path / "lm.done").write_text("1")
    args = run.parse_args(["wait", "--out", str(tmp_path), "--seconds", "60"])
    assert run.wait(args) == 1
    assert "lm FAILED" in capsys.readouterr().out
    (tmp_path / "all.done").write_text("{}")
    assert run.wait(args) == 1  # the others have gone on; the failure is not forgotten
    assert "all done" in capsys.readouterr().out


def test_a_stage_is_told_all(tmp_path: Path, pocket_dir: Path) -> None:
    words = f"start --hear 270 --seconds lm=720 --scale 0.5 --data {tmp_path} --out {tmp_path}".split()
    args = run.parse_args(words)
    told = train_lm.parse_args(run.arguments(args, "lm"))
    assert (told.hear_seconds, told.seconds) == (270, 720)
    assert (told.init, told.assets) == (pocket_dir, tmp_path / "base")
    assert run.arguments(args, "hift")[5] == "350.0"
    cold = run.parse_args([*words, "--cold", "--dry", "--resume"])
    assert "--init" not in run.arguments(cold, "lm")
    assert run.arguments(cold, "flow")[-2:] == ["--resume", "--dry"]


class Scripts:
    """Stages that are over at once."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> None:
        self.began: list[str] = []

        def start(pipeline: run.Pipeline, name: str, _gpus: int) -> subprocess.Popen[bytes]:
            self.began.append(name)
            if name == "data":
                (tmp_path / "corpus.json").write_text("{}")
            if name == "text":
                (tmp_path / "base").mkdir()
                (tmp_path / "base" / "generation_config.json").write_text("{}")
            status = "1" if name == failing else "0"
            return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])

        monkeypatch.setattr(run.Pipeline, "_start", start)

    def status(self, tmp_path: Path, *more: str) -> dict[str, int]:
        words = ["pipeline", "--data", str(tmp_path), "--out", str(tmp_path), "--gpus", "0", *more]
        return run.Pipeline(run.parse_args(words)).run()


def test_every_stage_runs_once_what_it_begins_with_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = Scripts(tmp_path, monkeypatch)
    assert set(scripts.status(tmp_path).items()) == {(name, 0) for name in run.WHOLE}
    assert scripts.began[0] == "data"
    assert scripts.began[-1] == "package"
    again = Scripts(tmp_path, monkeypatch)
    assert set(again.status(tmp_path, "--resume").values()) == {0}
    assert again.began == []


def test_what_a_failed_stage_feeds_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Scripts(tmp_path, monkeypatch, failing="text")
    status = scripts.status(tmp_path)
    assert {name for name, code in status.items() if code} == {"text", "lm", "package"}
    assert "package" not in scripts.began


def test_weights_of_a_folder_fit_the_model(pocket_dir: Path) -> None:
    config = train_lm.StepAudio2Config.from_folder(pocket_dir)
    StepAudio2(config).load_state_dict(warm_start.weights_of(pocket_dir))


def test_a_new_vocabulary_begins_with_the_rows_of_the_old_one(pocket_dir: Path) -> None:
    spec = json.loads((pocket_dir / "tokenizer.json").read_text())
    old = TextTokenizer(spec)
    base = len(spec["model"]["vocab"])
    spec["model"]["vocab"]["zzxq"] = base  # a text token more: every special token moves on by one
    spec["added_tokens"] = [entry | {"id": entry["id"] + 1} for entry in spec["added_tokens"]]
    new = TextTokenizer(spec)
    matrix = torch.randn(old.size, 4)
    rows = warm_start.carried(matrix, old, new, rows=new.size + 6)
    assert rows.shape == (new.size + 6, 4)
    assert torch.equal(rows[new.ids.audio_0 : new.ids.audio_pad], matrix[old.ids.audio_0 : old.ids.audio_pad])
    assert torch.equal(rows[new.ids.eot], matrix[old.ids.eot])
    (word,) = old.encode(" the")
    assert torch.equal(rows[word], matrix[word])
    torch.testing.assert_close(rows[base], matrix[old.encode("zzxq")].mean(0))
