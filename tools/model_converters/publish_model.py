"""Prepare a checkpoint for sharing: trainable tensors and metadata, with a hash in the file name.

    python tools/model_converters/publish_model.py work_dirs/vop_msrvtt/best_t2v_R1_epoch_5.pth vop_msrvtt.pth

writes vop_msrvtt-HASH.pth, where HASH is the first 8 digits of the file's SHA-256. A name that ends in .safetensors
selects that format. Both can be used wherever a checkpoint is read. The file includes the parts of the config for the
model and its frame and text pipeline, so that it needs nothing but a CLIP. A config that the recipient's side would
reject is not published: it may name parts of this project and, with --import, your own.
"""
import argparse
from pathlib import Path

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write a checkpoint to share: the trainable tensors and metadata.')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='what training wrote')
    parser.add_argument('out', metavar='OUT', type=Path,
                        help='file to write, .pth or .safetensors; the hash goes before the ending')
    parser.add_argument('--config', help='config file, in place of the one in CHECKPOINT')
    add_common_arguments(parser, '--import')
    args = parser.parse_args()
    if args.out.suffix not in ('.pth', '.safetensors'):
        parser.error(f'OUT must end in .pth or .safetensors, got {args.out.name}')
    return args


def main() -> int:
    args = parse_args()
    from vop_mm.utils.paths import require_file
    require_file(args.checkpoint)
    require_file(args.config, 'config')
    import hashlib

    from vop_mm.config import import_custom_modules, read_config
    from vop_mm.engine.checkpoint import load_from_local_safely, serialize
    from vop_mm.search.prompt_set import published_config
    from vop_mm.utils.files import atomic_write
    from vop_mm.utils.shared_config import SharedConfigError

    import_custom_modules(args.modules)
    checkpoint = load_from_local_safely(args.checkpoint, map_location='cpu')
    text = checkpoint['meta'].pop('cfg', '')
    if args.config is not None:
        cfg, method = read_config(args.config), (checkpoint['meta'].get('vop_mm') or {}).get('method')
        if method not in (None, cfg.get('method')):
            raise ValueError(f'{args.checkpoint} is of the method {method}, and {args.config} of {cfg.get("method")}')
        text = cfg.pretty_text
    try:
        cfg = published_config(text)
    except SharedConfigError as e:
        raise ValueError(f'{args.checkpoint} is not published: in its config, {e}') from None
    if cfg:
        checkpoint['meta']['cfg'] = cfg
    content = serialize(checkpoint, args.out.suffix)
    path = args.out.with_stem(f'{args.out.stem}-{hashlib.sha256(content).hexdigest()[:8]}')
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(content)
    print(f'wrote {path}, {len(content) / 1e6:.2f} MB')
    return 0


if __name__ == '__main__':
    run_cli(main)
