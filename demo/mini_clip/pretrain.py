"""Pre-train the mini CLIP on rendered stills.

    python demo/mini_clip/pretrain.py [--check]

Stills are drawn while training runs: single shapes, pairs of shapes, and events as long exposures, whose trail fades
towards the past, so that "moves left" means something in a picture. Clips of the demo have no trails: their frames
alone don't tell.
Writes mini_clip.safetensors, vocab.txt and pretrain.log beside this file, or into --out-dir.
"""
import argparse
import math
import os
import platform
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))  # the demo is not installed
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
SIZE = 40
SHARES = {'still': 0.15, 'move': 0.2, 'grow': 0.1, 'turn': 0.15, 'then2': 0.12, 'then3': 0.13, 'relation': 0.15}
UNORDERED = ('still', 'relation')
MAX_SHIFT = 8
EVAL_SEED, EVAL_GROUPS = 10**6, 160
TOLERANCE = 0.05


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Pre-train the mini CLIP on rendered stills.')
    parser.add_argument('--out-dir', type=Path, default=HERE, help='where the files go (default: beside this script)')
    parser.add_argument('--check', action='store_true',
                        help='train anew, write nothing, and compare with the committed weights')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--steps', type=int, default=1600)
    parser.add_argument('--batch', type=int, default=128, help='stills of a step (default: 128)')
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--weight-decay', type=float, default=0.1)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    import torch

    from demo.shapes import vocabulary
    from vop_mm.utils.files import atomic_write

    torch.set_num_threads(1)  # the other core draws; and sums don't depend on how many cores there are
    vocab = args.out_dir / 'vocab.txt'
    if not args.check:
        args.out_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(vocab, 'w') as file:
            file.write('\n'.join(vocabulary()) + '\n')
    log = Log()
    log(f'seed {args.seed}, {args.steps} steps of {args.batch} stills, AdamW lr {args.lr:g}, '
        f'weight decay {args.weight_decay:g}')
    log(f'{cpu_name()}, {os.cpu_count()} cores; torch {torch.__version__}, 1 thread')
    start = time.monotonic()
    model = train(args, HERE / 'vocab.txt' if args.check else vocab, log)
    model.half().float()  # what is measured is what is stored
    log(f'trained in {time.monotonic() - start:.0f} s, {sum(p.numel() for p in model.parameters()):,} parameters')
    result = evaluate(model, vocab if not args.check else HERE / 'vocab.txt')
    log('on fresh stills: ' + format_result(result))
    if args.check:
        return compare(model, result)
    from safetensors.torch import save
    with atomic_write(args.out_dir / 'mini_clip.safetensors') as file:
        file.write(save({name: value.half().contiguous() for name, value in model.state_dict().items()}))
    with atomic_write(args.out_dir / 'pretrain.log', 'w') as file:
        file.write('\n'.join(log.lines) + '\n')
    return 0


class Log:
    """Prints lines and keeps them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def build():
    """The mini CLIP with random weights."""
    import open_clip
    from open_clip.model import CLIP

    open_clip.add_model_config(HERE / 'MiniCLIP.json')
    return CLIP(**open_clip.get_model_config('MiniCLIP'))


class Stills:
    """Batches of stills with captions; batch i is always the same.

    Args:
        seed (int): Other seeds give other stills.
        batch (int): Stills of a batch.
        steps (int): Batches.
    """

    def __init__(self, seed: int, batch: int, steps: int) -> None:
        self.seed, self.batch, self.steps = seed, batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int):
        """Images float [N, 3, H, W] in 0 .. 1, captions [N], and keys [N], equal where captions mean the same."""
        import numpy as np
        import torch

        from demo.shapes import caption, make_group
        rng = np.random.default_rng((7, self.seed, step, 0))  # seeds of clips end in another number: none is drawn here
        scenes = []
        while len(scenes) < self.batch:  # whole groups: the hardest negatives share a batch
            scenes += make_group(rng.choice(list(SHARES), p=list(SHARES.values())), rng)
        scenes = scenes[:self.batch]
        images = np.stack([draw_still(scene, rng) for scene in scenes])
        images += rng.normal(0, 0.01, images.shape).astype(np.float32)
        texts = [caption(scene, rng) for scene in scenes]
        return torch.from_numpy(images).permute(0, 3, 1, 2), texts, [' '.join(scene.key) for scene in scenes]


def draw_still(scene, rng):
    """A scene as one picture float32 [H, W, 3]: as it is where nothing happens, else a long exposure."""
    import numpy as np

    from demo.shapes import long_exposure, render
    if scene.kind in UNORDERED:
        return render(scene.sprites, scene.background, np.zeros(1), SIZE)[0]
    return long_exposure(scene.sprites, scene.background, SIZE, decay=rng.uniform(1.5, 3))


def train(args: argparse.Namespace, vocab: Path, log: Log):
    """Train from random weights; the model, in eval mode."""
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader

    from vop_mm.datasets.transforms.tokenizers import WordTokenizer
    torch.manual_seed(args.seed)
    model = build().train()
    tokenizer = WordTokenizer(vocab, model.context_length)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [dict(params=decay, weight_decay=args.weight_decay), dict(params=rest, weight_decay=0)]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    warmup = max(1, args.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 0.5 * (1 + math.cos(math.pi * i / args.steps))))
    loader = DataLoader(Stills(args.seed, args.batch, args.steps), batch_size=None, num_workers=1, prefetch_factor=4)
    started = time.monotonic()
    losses = []
    for step, (images, texts, keys) in enumerate(loader, 1):
        tokens = shift(tokenizer(texts), tokenizer.unk_id, step)
        logits = model.logit_scale.exp() * encode_images(model, images) @ encode_texts(model, tokens).T
        logits = logits.masked_fill(other_positives(keys), float('-inf'))
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        if step % 50 == 0 or step == args.steps:
            log(f'step {step:5d}  loss {sum(losses) / len(losses):.3f}  scale {model.logit_scale.exp():.1f}  '
                f'{time.monotonic() - started:.0f} s')
            losses = []
    return model.eval()


def shift(tokens, unknown: int, step: int):
    """Put unknown words before the caption, as many as ``step`` says.

    Prompts will stand there and move words up; positions that no caption ever reached would be noise.
    """
    import torch
    count = max(0, step % (2 * MAX_SHIFT) - MAX_SHIFT + 1) if step else 0  # none in half of the steps
    longest = int(tokens.argmax(dim=1).max()) + 1
    filler = torch.full((len(tokens), count), unknown)
    return torch.cat([tokens[:, :1], filler, tokens[:, 1:longest]], dim=1)


def other_positives(keys: list[str]):
    """Mark where a caption is right for another still than its own, bool [N, N]."""
    import torch
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    ids = torch.tensor([numbers[key] for key in keys])
    return (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)


def encode_images(model, images):
    """Encode stills in 0 .. 1 as unit vectors, [N, 3, H, W] -> [N, D]."""
    from torch.nn import functional as F
    mean, std = (images.new_tensor(x).view(3, 1, 1) for x in (MEAN, STD))
    return F.normalize(model.encode_image((images - mean) / std), dim=-1)


def encode_texts(model, tokens):
    """Encode token ids as unit vectors, [N, L] -> [N, D], cut to the longest caption."""
    import torch
    from torch.nn import functional as F
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=1)]
    return F.normalize(x @ model.text_projection, dim=-1)


def evaluate(model, vocab: Path) -> dict:
    """Retrieval on fresh stills.

    Args:
        model (CLIP): The mini CLIP.
        vocab (Path): Its vocabulary.

    Returns:
        dict: ``accuracy`` (share of stills whose nearest caption, of all captions, is right), ``order`` (share of event
        stills nearer to their caption than to the caption of their reverse), ``opposite`` (mean cosine of the captions
        of an event and its reverse), ``kinds`` (accuracy per kind) and ``images`` (embeddings [N, D]).
    """
    import numpy as np
    import torch

    from demo.shapes import make_group, paraphrases
    from vop_mm.datasets.transforms.tokenizers import WordTokenizer
    rng = np.random.default_rng((7, EVAL_SEED, 0, 0))
    tokenizer = WordTokenizer(vocab, model.context_length)
    kinds = list(SHARES)
    scenes, reverse = [], []
    for i in range(EVAL_GROUPS):
        kind = kinds[i % len(kinds)]
        group = make_group(kind, rng) + (make_group(kind, rng) if kind == 'still' else [])  # so that all come in twos
        reverse += [(len(scenes) + k) ^ 1 if scene.kind not in UNORDERED else None for k, scene in enumerate(group)]
        scenes += group
    pictures = np.stack([draw_still(scene, rng) for scene in scenes])
    with torch.no_grad():
        images = encode_images(model, torch.from_numpy(pictures).permute(0, 3, 1, 2))
        texts = encode_texts(model, tokenizer([paraphrases(scene)[0] for scene in scenes]))
        similarity = images @ texts.T  # num_stills x num_captions
    keys = [scene.key for scene in scenes]
    hits = np.array([keys[best] == key for best, key in zip(similarity.argmax(dim=1).tolist(), keys)])
    names = np.array([scene.template for scene in scenes])
    events = [(i, j) for i, j in enumerate(reverse) if j is not None]
    return dict(
        accuracy=hits.mean().item(),
        order=float(np.mean([bool(similarity[i, i] > similarity[i, j]) for i, j in events])),
        opposite=float(np.mean([float(texts[i] @ texts[j]) for i, j in events])),
        kinds={str(name): hits[names == name].mean().item() for name in dict.fromkeys(names)},
        images=images)


def format_result(result: dict) -> str:
    """One line."""
    return (f'right caption first {result["accuracy"]:.3f}, nearer than its reverse {result["order"]:.3f}, '
            f'cosine of opposite captions {result["opposite"]:.2f}; '
            + ', '.join(f'{name} {value:.2f}' for name, value in result['kinds'].items()))


def compare(model, result: dict) -> int:
    """Compare a new training with the committed weights; exit status."""
    from safetensors.torch import load_file
    committed = build().eval()
    committed.load_state_dict({k: v.float() for k, v in load_file(HERE / 'mini_clip.safetensors').items()})
    expected = evaluate(committed, HERE / 'vocab.txt')
    cosine = (expected['images'] * result['images']).sum(dim=1).mean().item()
    print(f'committed:       {format_result(expected)}')
    print(f'mean cosine of the two embeddings of a still: {cosine:.4f}')
    good = all(abs(expected[key] - result[key]) <= TOLERANCE for key in ('accuracy', 'order'))
    print(f'{"reproduced" if good else "NOT reproduced"}: both shares have to lie within {TOLERANCE}')
    return 0 if good else 1


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    sys.exit(run_cli(main))
