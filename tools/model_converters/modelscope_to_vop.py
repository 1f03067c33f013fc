"""Convert a published VoP checkpoint (ModelScope) to one of this project.

    python tools/model_converters/modelscope_to_vop.py SRC_DIR DST.pth

SRC_DIR is the published folder: VoP_msrvtt9k.pth, ViT-B-32.pt, configuration.json. The tool writes the prompts to
DST.pth and a config that evaluates them to DST.py: python tools/test.py DST.py DST.pth
"""
import argparse
import json
from contextlib import contextmanager
from pathlib import Path

CHECKPOINT, CLIP, SETTINGS = 'VoP_msrvtt9k.pth', 'ViT-B-32.pt', 'configuration.json'
BASES = Path(__file__).resolve().parents[2] / 'configs' / '_base_'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Convert a published VoP checkpoint (ModelScope).')
    parser.add_argument('src', metavar='SRC_DIR', type=Path, help=f'folder with {CHECKPOINT}, {CLIP}, {SETTINGS}')
    parser.add_argument('dst', metavar='DST.pth', type=Path, help='checkpoint to write; its config goes beside it')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    for name in (CHECKPOINT, CLIP, SETTINGS):
        if not (args.src / name).is_file():
            raise FileNotFoundError(f'{args.src} lacks {name}')
    import torch

    from vop_mm.engine.checkpoint import describe
    from vop_mm.models.backbones.base import fingerprint
    from vop_mm.models.backbones.clip_weights import read_clip_weights
    from vop_mm.models.tuning import trainable_parameters
    from vop_mm.registry import MODELS
    from vop_mm.utils import register_all_modules
    from vop_mm.utils.files import atomic_write

    register_all_modules()
    if args.dst.suffix != '.pth':
        raise ValueError(f'DST must end in .pth, got {args.dst}')
    with _named(args.src / SETTINGS):
        settings = json.loads((args.src / SETTINGS).read_text())['hyperparam']
        lengths = [settings['tp_prefix_token_num'], settings['tp_suffix_token_num']]
        settings['num_frames']
    published = read_clip_weights(args.src / CHECKPOINT).state_dict
    with _named(args.src / CHECKPOINT):
        frame_prompts = published['visual_prompt_learner.visual_prompts'].squeeze(1)  # [L, 1, K, C] -> [L, K, C]
        text_prompts = published['text_prompt_learner.text_prompts'].split(lengths, dim=1)

    # The checkpoint contains the towers, too, and the published code uses these.
    weights, towers = args.src / CLIP, _towers(published)
    backbone = read_clip_weights(weights).state_dict
    with _named(weights):
        write_clip = any(not torch.equal(value, backbone[name]) for name, value in towers.items())
    if write_clip:
        backbone = {**backbone, **towers}
        weights = args.dst.with_suffix('.clip.safetensors')

    cfg = _config(backbone, settings, frame_prompts.shape[1], [t.shape[1] for t in text_prompts], str(weights))
    # Built with random CLIP weights, which are then replaced: the new weights may not be on disk yet.
    model = MODELS.build({**cfg.model, 'backbone': {**cfg.model.backbone, 'weights': None}})
    model.backbone.model.load_state_dict(backbone)
    model.backbone.fingerprint = fingerprint(backbone)
    prompts = [frame_prompts, *(t for t in text_prompts if t.shape[1])]
    for parameter, value in zip(trainable_parameters(model).values(), prompts, strict=True):
        with torch.no_grad():
            parameter.copy_(value)

    args.dst.parent.mkdir(parents=True, exist_ok=True)
    if write_clip:
        from safetensors.torch import save
        with atomic_write(weights) as file:
            file.write(save({k: v.contiguous() for k, v in backbone.items()}))
    meta = dict(vop_mm=describe(model, cfg, 'msrvtt'), cfg=cfg.pretty_text)
    with atomic_write(args.dst) as file:
        torch.save(dict(meta=meta, state_dict={k: p.detach() for k, p in trainable_parameters(model).items()}), file)
    with atomic_write(args.dst.with_suffix('.py'), 'w') as file:
        file.write(cfg.pretty_text)
    print(f'wrote {args.dst} ({args.dst.stat().st_size / 1e6:.2f} MB) and {args.dst.with_suffix(".py")}')
    if write_clip:
        print(f'the towers in {CHECKPOINT} differ from {CLIP}: wrote them to {weights}')
    return 0


@contextmanager
def _named(path: Path):
    """Add the file name to errors about its content."""
    try:
        yield
    except KeyError as e:
        raise ValueError(f'{path} lacks {e.args[0]}') from e
    except (ValueError, RuntimeError, TypeError) as e:
        raise ValueError(f'{path} is not as published: {e}') from e


def _towers(published: dict) -> dict:
    """Return the towers in the checkpoint, under CLIP's names."""
    towers = {'visual.' + name.removeprefix('image_encoder.'): value for name, value in published.items()
              if name.startswith('image_encoder.')}
    towers |= {name.removeprefix('text_encoder.'): value for name, value in published.items()
               if name.startswith('text_encoder.')}
    if 'clip.logit_scale' in published:
        towers['logit_scale'] = published['clip.logit_scale']
    return towers


def _config(backbone: dict, settings: dict, frame_prompts: int, text_prompts: list[int], weights: str):
    """Build the config that evaluates the checkpoint on MSR-VTT: this project's, with the published settings."""
    from mmengine.config import Config

    from vop_mm.models.backbones.openai_arch import openai_arch

    cfg = Config.fromfile(BASES / 'models' / 'vop.py')
    for base in ('datasets/msrvtt.py', 'schedules/vop_5e.py', 'default_runtime.py'):
        cfg.merge_from_dict(Config.fromfile(BASES / base).to_dict())
    model = cfg.model
    model.backbone.arch, model.backbone.weights = openai_arch(backbone), weights
    model.num_frames = settings['num_frames']
    model.frame_prompts = [dict(type='GenericPrompt', num_tokens=frame_prompts)]
    model.text_prompts = [dict(type='GenericPrompt', num_tokens=text_prompts[0])] if text_prompts[0] else []
    if text_prompts[1]:
        model.text_suffix_prompts = [dict(type='GenericPrompt', num_tokens=text_prompts[1])]
        model.published_eot = True  # position at which the published code reads a text with suffix
    cfg.num_frames = settings['num_frames']
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[key].dataset.pipeline[0].num_frames = settings['num_frames']
    return cfg


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
