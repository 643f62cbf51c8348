"""The exam's batched greedy decoding against whole passes."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from scripts.pocket.lm_eval import Exam, Question
from voiceagent.models.step_audio2.config import AudioEncoderConfig, StepAudio2Config, TextConfig
from voiceagent.models.step_audio2.model import StepAudio2

TEXT = TextConfig(32, 48, 2, 4, 2, 8, 200, 512, 1e-6, 10_000.0)
AUDIO = AudioEncoderConfig(128, 1500, 32, 2, 1, 32, 3, 2, 24)


@torch.inference_mode()
def test_answers_equal_those_of_whole_passes() -> None:
    torch.manual_seed(0)
    model = StepAudio2(StepAudio2Config(TEXT, AUDIO)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prompts = [list(range(7, 7 + length)) for length in (3, 130, 64)]
    exam = Exam.__new__(Exam)
    exam.scribe = SimpleNamespace(tokenizer=SimpleNamespace(ids=SimpleNamespace(eot=0)))  # type: ignore[assignment]
    exam.patch = 1
    questions = [Question(prompt, [], "", "", "", [], {}, "", "") for prompt in prompts]
    for prompt, answer in zip(prompts, exam.answers(model, questions, limit=20), strict=True):
        slow: list[int] = []
        for _ in range(20):
            hidden = model.hidden(model.embed(torch.tensor([[*prompt, *slow]])))
            slow.append(int(model.logits(hidden)[0, -1].argmax()))
            if slow[-1] == 0:
                slow.pop()
                break
        assert answer == slow
