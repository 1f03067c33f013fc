"""Tests of the bank's tokens against an explicit mixture, and of the method in a whole model."""
from pathlib import Path

import torch
from mmengine.config import Config

from projects.example_project.bank_prompt import BankPrompt
from vop_mm.models.prompts import LayerContext
from vop_mm.models.tuning import trainable_state_dict
from vop_mm.registry import MODELS

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'vop_bank_demo.py'


def test_tokens_are_the_weighted_mean_of_the_bank():
    torch.manual_seed(0)
    prompt = BankPrompt(2, bank_size=3, width=4, depth=5, layers=(1, 4), init_std=1.)
    cls = torch.randn(2, 6, 4)
    found = prompt.tokens(LayerContext(2, cls))
    assert found.shape == (2, 6, 2, 4)
    for b in range(2):
        for f in range(6):
            weights = torch.exp(prompt.keys[1] @ cls[b, f])
            expected = sum(w * entry for w, entry in zip(weights, prompt.bank[1])) / weights.sum()
            torch.testing.assert_close(found[b, f], expected)


def test_is_found_by_the_config_alone(monkeypatch):
    monkeypatch.chdir(CONFIG.parents[3])
    cfg = Config.fromfile(CONFIG)
    model = MODELS.build(cfg.model)
    names = [f'vision_tower.prompts.{name}' for name in ('0.weight', '1.keys', '1.bank')]
    assert list(trainable_state_dict(model)) == [*names, 'text_tower.prompts.0.weight']
    frames = torch.randn(1, 12, 3, 40, 40)
    changed = frames.clone()
    changed[:, 3] += 1
    difference = (model.encode_frames(changed) - model.encode_frames(frames)).abs().amax(dim=(0, 2))
    assert difference[3] > 1e-4 and difference.argmax() == 3
    assert (difference[:3] == 0).all() and (difference[4:] == 0).all()  # a frame's tokens depend only on that frame
