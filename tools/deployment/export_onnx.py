"""Export the two towers of a model, including prompts, to ONNX files and check them in onnxruntime.

    python tools/deployment/export_onnx.py configs/vop/vop_msrvtt.py best_t2v_R1_epoch_5.pth exported

writes exported/video.onnx, exported/text.onnx and exported/model.json; docs/en/deployment.md explains their use.
"""
import argparse

from vop_mm.utils.cli import add_common_arguments, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Export the video and the text tower to ONNX.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='what training wrote; none for a config that trains nothing')
    parser.add_argument('out_dir', metavar='OUT_DIR', help='folder to write to')
    parser.add_argument('--opset', type=int, default=18, help='opset version of ONNX, at least 18 (default: 18)')
    parser.add_argument('--external-data', action='store_true',
                        help='keep the weights in files of their own, as is done anyway near 2 GB')
    parser.add_argument('--check', action=argparse.BooleanOptionalAction, default=True,
                        help='run the files in onnxruntime beside the model (default: yes)')
    parser.add_argument('--tolerance', type=float, default=1e-4,
                        help='largest difference of a value that passes the check (default: 1e-4)')
    add_common_arguments(parser, '--cfg-options')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    from vop_mm.utils.paths import require_file
    require_file(args.config, 'config')
    require_file(checkpoint)
    from vop_mm.apis import init_model
    from vop_mm.config import read_config, require_checkpoint
    from vop_mm.deployment.onnx_export import export_onnx

    cfg = read_config(args.config, args.cfg_options)
    require_checkpoint(cfg, checkpoint, 'to export')
    model = init_model(cfg, checkpoint)
    written = export_onnx(model, args.out_dir, checkpoint, opset=args.opset, external_data=args.external_data,
                          check=args.check, tolerance=args.tolerance, log=lambda line: print(line, flush=True))
    print(f'wrote {", ".join(written["sha256"])} and model.json to {args.out_dir}')
    return 0


if __name__ == '__main__':
    run_cli(main)
