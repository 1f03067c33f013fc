"""Export both towers, including prompts, to ONNX files for programs without torch."""
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from vop_mm.datasets.transforms import split_pipeline
from vop_mm.engine.checkpoint import describe
from vop_mm.models.backbones.base import fingerprint
from vop_mm.models.tuning import trainable_state_dict
from vop_mm.registry import TOKENIZERS
from vop_mm.utils.files import temporary_folder
from vop_mm.utils.version_guard import in_range

VIDEO, TEXT, DESCRIPTION = 'video.onnx', 'text.onnx', 'model.json'
LOWEST_TORCH, LOWEST_OPSET = '2.9', 18  # torch 2.6 fails on every model, 2.8 on compiled ones
_CHECKED_BATCHES = (1, 3)


class VideoEncoder(nn.Module):
    """Video encoder of ``video.onnx``: decoded frames, normalized inside, to video embeddings.

    A model that masks the padding of short videos has a mask of real frames as a second input.

    Args:
        model (TextVideoRetriever): Model in evaluation mode.
    """
    output = 'video_features'

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.masked = model.data_preprocessor.short_videos == 'mask'
        self.axes = dict(frames={0: 'batch'}, **(dict(frame_mask={0: 'batch'}) if self.masked else {}))

    def forward(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Encode videos. uint8 [B, F, 3, H, W], bool [B, F] or None -> [B, D], unit norm."""
        return self.model.encode_video(self.model.data_preprocessor.normalize(frames), frame_mask)

    reference = forward

    def random_inputs(self, batch_size: int, seed: int = 0) -> dict[str, Tensor]:
        """Return random noise as input."""
        generator = torch.Generator().manual_seed(seed)
        num_frames = self.model.vision_tower.num_frames
        shape = batch_size, num_frames, 3, *self.model.backbone.image_size
        inputs = dict(frames=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        if self.masked:
            real = torch.randint(1, num_frames + 1, (batch_size, 1), generator=generator)
            inputs['frame_mask'] = torch.arange(num_frames)[None] < real  # [B, F]
        return inputs


class TextEncoder(nn.Module):
    """Text encoder of ``text.onnx``: token ids to text embeddings.

    Token ids have any length if nothing after end of text affects an embedding. Those that exceed the tower's context
    are then cut, keeping end of text, and so are those after the batch's last end of text: padding would only cost
    time. For other towers they have the context length, as tokenizers return them.

    Args:
        model (TextVideoRetriever): Model in evaluation mode.
    """
    output = 'text_features'

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.any_length = model.backbone.causal_text and not model.backbone.reads_last
        self.axes = dict(tokens={0: 'batch', **({1: 'length'} if self.any_length else {})})

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode texts. int64 [B, L] -> [B, D], unit norm."""
        if not self.any_length:
            return self.model.encode_text(tokens)
        most = self.model.text_tower.max_words
        eot = self.model.backbone.caption_ends(tokens)[:, None]  # [B, 1]
        length = (eot.max() + 1).clamp(max=most).item()
        torch._check(length >= 2)  # for the exporter, which must keep the length dynamic
        torch._check(length <= most)
        kept = torch.arange(length, device=tokens.device)  # [L']
        cut = (eot >= most) & (kept == most - 1)
        tokens = torch.where(cut, tokens.gather(1, eot), tokens.index_select(1, kept))  # [B, L] -> [B, L']
        return self.model.encode_text(tokens)

    def reference(self, tokens: Tensor) -> Tensor:
        """Encode texts with the model itself, for comparison."""
        return self.model.encode_text(tokens)

    def random_inputs(self, batch_size: int, seed: int = 0) -> dict[str, Tensor]:
        """Return random words of the tower's context length, with random ends of text."""
        generator = torch.Generator().manual_seed(seed)
        backbone = self.model.backbone
        tokens = torch.randint(1, backbone.vocab_size - 1, (batch_size, backbone.context_length), generator=generator)
        tokens += tokens >= backbone.end_of_text
        for row, end in zip(tokens, torch.randint(1, backbone.context_length, (batch_size, ), generator=generator)):
            row[end], row[end + 1:] = backbone.end_of_text, 0
        return dict(tokens=tokens)


def export_onnx(model: nn.Module, out_dir: str | Path, checkpoint: str | Path | None = None, *,
                opset: int = LOWEST_OPSET, external_data: bool = False, check: bool = True, tolerance: float = 1e-4,
                log: Callable[[str], None] = lambda line: None) -> dict:
    """Write ``video.onnx``, ``text.onnx`` and ``model.json``.

    The files are written to a temporary folder and renamed when all are complete, ``model.json`` last: a folder that
    has it is complete. On an error, the previous content of the folder is kept.

    Args:
        model (TextVideoRetriever): Model from :func:`vop_mm.apis.init_model`, on the CPU.
        out_dir (str | Path): Output folder, created if missing.
        checkpoint (str | Path, optional): Checkpoint file of the model, for ``model.json``.
        opset (int): ONNX opset, at least 18. Defaults to 18.
        external_data (bool): Store the weights in a separate file, ``video.onnx.data``. This is done in any case near
            2 GB, the maximum size of an ONNX file. Defaults to False.
        check (bool): Compare the files with the model in onnxruntime, if it is installed. Defaults to True.
        tolerance (float): Maximum difference of an embedding's values. Defaults to 1e-4.
        log (Callable): Called with progress messages. Defaults to no output.

    Returns:
        dict: Content of ``model.json``.

    Raises:
        ImportError: onnx or onnxscript is missing, or torch is too old.
        ValueError: The opset is unknown, the model can't be exported (its head is no cosine), or a file deviates.
        OSError: The folder can't be written.
    """
    model.head.require_cosine('an ONNX file')
    _require_exporter(opset)
    encoders = {VIDEO: VideoEncoder(model), TEXT: TextEncoder(model)}
    about = describe_export(model, checkpoint, opset)
    if check and importlib.util.find_spec('onnxruntime') is None:
        log('not checked: onnxruntime is not installed (pip install onnxruntime)')
        check = False
    names = [name for tower in encoders for name in (tower, f'{tower}.data')]
    with _written_together(Path(out_dir), names, last=DESCRIPTION) as folder:
        description = {**about, 'largest_difference': {}}
        for name, encoder in encoders.items():
            start = time.perf_counter()
            write_onnx(encoder, folder / name, opset, external_data, dict(vop_mm=json.dumps(about)))
            size = sum(path.stat().st_size for path in folder.glob(f'{name}*'))
            log(f'{name}: exported in {time.perf_counter() - start:.0f} s, {size / 1e6:.1f} MB')
            if check:
                difference = largest_difference(folder / name, encoder)
                if not difference <= tolerance:
                    raise ValueError(f'{name} differs from the model by {difference:.1e}, more than {tolerance:.0e}: '
                                     'nothing was written')
                description['largest_difference'][name] = difference
                log(f'{name}: differs from the model by at most {difference:.1e}')
        description['sha256'] = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + '\n', encoding='utf-8')
    return description


def write_onnx(encoder: VideoEncoder | TextEncoder, path: Path, opset: int = LOWEST_OPSET,
               external_data: bool = False, metadata: dict[str, str] | None = None) -> None:
    """Export one tower.

    Args:
        encoder (VideoEncoder | TextEncoder): The tower.
        path (Path): Output file.
        opset (int): ONNX opset. Defaults to 18.
        external_data (bool): Store the weights in ``path`` + ``.data``. Defaults to False.
        metadata (dict[str, str], optional): Entries for the file's metadata.

    Raises:
        ImportError: onnx or onnxscript is missing, or torch is too old.
        ValueError: The exporter can't write this opset.
    """
    _require_exporter(opset)
    inputs = encoder.random_inputs(batch_size=2)
    # torch.export refuses code that fixes a dynamic size; torch.onnx.export, given the module, silently fixes it.
    dims = {name: torch.export.Dim(name, min=1) for axes in encoder.axes.values() for name in axes.values()}
    shapes = {name: {axis: dims[dim] for axis, dim in axes.items()} for name, axes in encoder.axes.items()}
    with torch.no_grad(), torch.compiler.set_stance('force_eager'), _quiet():
        program = torch.export.export(encoder.eval(), tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
        onnx_program = torch.onnx.export(program, (), dynamo=True, input_names=list(inputs), opset_version=opset,
                                         output_names=[encoder.output], dynamic_shapes=encoder.axes, verbose=False)
    written = onnx_program.model.opset_imports['']
    if written != opset:
        raise ValueError(f'the exporter of torch {torch.__version__} can\'t write opset {opset}, it wrote {written}')
    for node in onnx_program.model.graph.all_nodes():
        node.metadata_props.clear()  # source lines of this machine's Python files
    onnx_program.model.metadata_props.update(metadata or {})
    onnx_program.save(path, external_data=external_data)


def open_session(path: str | Path, num_threads: int = 0):
    """Open an ``onnxruntime.InferenceSession`` on the CPU; 0 threads: onnxruntime's default number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # errors only: its warnings are about missing devices
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def largest_difference(path: str | Path, encoder: VideoEncoder | TextEncoder) -> float:
    """Return the largest difference between an ONNX file and the model, on random inputs of two batch sizes.

    Args:
        path (str | Path): ONNX file.
        encoder (VideoEncoder | TextEncoder): Encoder that it was exported from.

    Returns:
        float: Largest absolute difference of an embedding value; NaN if any value is NaN.
    """
    session, differences = open_session(path), []
    for batch_size in _CHECKED_BATCHES:
        inputs = encoder.random_inputs(batch_size, seed=batch_size)
        found, = session.run([encoder.output], {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad(), torch.compiler.set_stance('force_eager'):  # compiling would take longer than computing
            expected = encoder.reference(**inputs)
        if found.shape != expected.shape:
            raise ValueError(f'{Path(path).name} gives {found.shape}, the model {tuple(expected.shape)}')
        differences.append((torch.from_numpy(found) - expected).abs().max())
    return float(torch.stack(differences).max())  # torch's max keeps NaN


def describe_export(model: nn.Module, checkpoint: str | Path | None, opset: int) -> dict:
    """Describe what a program needs to know to use the exported files.

    Args:
        model (TextVideoRetriever): The model; its ``cfg`` gives tokenizer and frames.
        checkpoint (str | Path, optional): Checkpoint file of the model.
        opset (int): ONNX opset.

    Returns:
        dict: Description with JSON types only.
    """
    preprocessor, backbone = model.data_preprocessor, model.backbone
    loader = model.cfg.get('test_dataloader') or {}
    pipeline = split_pipeline(loader.dataset.pipeline) if loader else None
    meta = describe(model, model.cfg)
    about = dict(
        method=meta['method'],
        clip=meta['clip'],
        prompts_fingerprint=fingerprint(trainable_state_dict(model)),
        embed_dim=backbone.embed_dim,
        num_frames=model.vision_tower.num_frames,
        image_size=list(backbone.image_size),
        frames='uint8 RGB [batch, num_frames, 3, height, width]; normalized inside, by mean and std of pixels in 0..1',
        mean=[round(x, 8) for x in preprocessor.mean.flatten().tolist()],
        std=[round(x, 8) for x in preprocessor.std.flatten().tolist()],
        short_videos=preprocessor.short_videos,
        frame_pipeline=[pipeline.read, *pipeline.augment] if pipeline else [],
        context_length=backbone.context_length,
        max_words=model.text_tower.max_words,
        tokenizer=pipeline and _describe_tokenizer(pipeline.tokenize.get('tokenizer', dict(type='CLIPTokenizer'))),
        checkpoint=checkpoint and dict(file=Path(checkpoint).name, sha256=_sha256(checkpoint)),
        opset=opset,
        versions=dict(vop_mm=meta['version'], **{name: version(name) for name in ('torch', 'onnx', 'onnxscript')}))
    return json.loads(json.dumps(about))  # lists instead of tuples, plain dicts instead of config dicts


def _describe_tokenizer(cfg: dict) -> dict:
    tokenizer = TOKENIZERS.build(cfg)
    described = {**cfg, 'context_length': tokenizer.context_length, 'start_of_text': tokenizer.sot_id,
                 'end_of_text': tokenizer.eot_id, 'padding': getattr(tokenizer, 'pad_id', 0)}
    if 'vocab' in described:  # the words themselves, so that the folder is self-contained
        words = Path(described.pop('vocab')).read_text(encoding='utf-8').splitlines()
        described.update(words=words, unknown=tokenizer.unk_id, first_word=tokenizer.sot_id + 1)
    return described


def _sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _require_exporter(opset: int) -> None:
    if not in_range(torch.__version__, f'>={LOWEST_TORCH}'):
        raise ImportError(f'export to ONNX needs torch >= {LOWEST_TORCH}, this is {torch.__version__}')
    missing = [name for name in ('onnx', 'onnxscript') if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'export to ONNX needs {" and ".join(missing)}: pip install {" ".join(missing)}')
    import onnx
    newest = onnx.defs.onnx_opset_version()
    if not LOWEST_OPSET <= opset <= newest:
        raise ValueError(f'opset must be {LOWEST_OPSET} .. {newest}, got {opset}')


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


@contextmanager
def _written_together(folder: Path, names: list[str], last: str) -> Iterator[Path]:
    """Yield a temporary folder whose files are moved to ``folder`` when all are written.

    The file named ``last`` marks a complete folder: it is removed before the first file is replaced, and moved last.
    Existing files of these names that were not written again are removed.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder, 'export') as beside:
            yield beside
            for path in beside.iterdir():
                with path.open('rb') as file:
                    os.fsync(file.fileno())
            (folder / last).unlink(missing_ok=True)
            for name in [*names, last]:
                if (beside / name).exists():
                    (beside / name).replace(folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
    except BaseException:
        for path in made:
            with suppress(OSError):  # missing, or not empty
                path.rmdir()
        raise
