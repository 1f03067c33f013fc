"""Training step of each method, compared with full fine-tuning on the same batch.

A step is forward, loss, backward and AdamW. Weights are random; frames and captions of full length are already on the
device. Memory on a GPU is the peak of a process with only this model, otherwise a count of weights, gradients, AdamW's
moments and the activations kept for the backward pass.
"""
import argparse

from ._models import add_arguments as add_model_arguments
from ._models import build_models, precision, random_batch
from ._rounds import beside, measure, ratio

FULL = 'Full'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    add_model_arguments(parser, ['configs/baselines/full_msrvtt.py', *(
        f'configs/vop/{name}_msrvtt.py' for name in ('vop', 'vop_p', 'vop_c', 'vop_f', 'vop_f_p', 'vop_f_c'))],
                        batch_size=2, repeat=5)


def run(args: argparse.Namespace) -> list[dict]:
    """Run the benchmark and return the rows of the table."""
    models = build_models(args)
    if FULL not in models:
        raise ValueError(f'one of the configs has to be of the method {FULL!r}, which the others are compared with')
    on_gpu = args.device.type == 'cuda'
    batch = random_batch(models[FULL], args)
    memory, kept = {}, {}
    for name, model in models.items():
        kept[name] = activations(model.train().to(args.device), batch, args)
        memory[name] = peak(model, batch, args) if on_gpu else counted(model) + kept[name]
        model.cpu()
    steps = {name: Step(model.to(args.device), batch, args) for name, model in models.items()}
    times = measure(steps, args.repeat, 'training', warm_up=1)
    rows = [dict(what=name, figure=f'{1000 * min(times[name]):.0f} ms', value=min(times[name])) for name in steps]
    for what, sizes in (('peak memory' if on_gpu else 'memory, counted', memory), ('activations kept', kept)):
        rows += [dict(what=f'{name}: {what}', figure=f'{sizes[name] / 1e6:.0f} MB', value=sizes[name])
                 for name in steps]
    for name in steps:
        if name != FULL:
            target = dict(at_most=0.75 if on_gpu else 0.8) if name == 'VoP' else {}
            rows.append(beside(f'{name}: time of a step, by Full\'s', ratio(times[name], times[FULL]), **target))
            target = dict(at_most=0.6) if name == 'VoP' and on_gpu else {}
            rows.append(beside(f'{name}: memory, by Full\'s', memory[name] / memory[FULL], **target))
    return rows


class Step:
    """Training step that can be called repeatedly."""

    def __init__(self, model, batch, args: argparse.Namespace) -> None:
        import torch

        self.model, self.batch, self.args = model, batch, args
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def __call__(self) -> None:
        with precision(self.args):
            loss = self.model(*self.batch, mode='loss')['loss']
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def activations(model, batch, args: argparse.Namespace) -> int:
    """Return the bytes that the forward pass keeps for the backward pass, without weights and the batch itself."""
    import torch

    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), *batch)}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with precision(args), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(*batch, mode='loss')['loss']  # while this exists, no storage is reused
    size = sum(kept.values())
    del loss
    return size


def counted(model) -> int:
    """Return the bytes of weights, gradients and AdamW's two moments."""
    return sum(p.nbytes * (4 if p.requires_grad else 1) for p in model.parameters())


def peak(model, batch, args: argparse.Namespace) -> int:
    """Return the peak GPU memory of a step with only this model, in bytes."""
    import gc

    import torch

    step = Step(model, batch, args)
    step()
    torch.cuda.reset_peak_memory_stats()
    step()
    size = torch.cuda.max_memory_allocated()
    step.optimizer = None
    gc.collect()
    torch.cuda.empty_cache()
    return size
