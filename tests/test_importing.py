"""Importing vop_mm changes nothing for other libraries in the process."""
import subprocess
import sys

from tests.tools import ROOT

CODE = '''
import importlib, json, logging, multiprocessing, os, pkgutil, signal, sys, threading, warnings
from contextlib import suppress


def import_everything():
    import vop_mm
    for module in pkgutil.walk_packages(vop_mm.__path__, 'vop_mm.'):
        with suppress(ModuleNotFoundError):  # an optional package
            importlib.import_module(module.name)


# what vop_mm imports is imported first: a process of its own lists it
reads, writes = os.pipe()
if os.fork() == 0:
    import_everything()
    os.write(writes, json.dumps([name for name in sys.modules if not name.startswith('vop_mm')]).encode())
    os._exit(0)
os.close(writes)
with open(reads) as file:
    libraries = json.load(file)
assert {'mmengine', 'torch', 'av', 'PIL', 'numpy'} <= set(libraries)
for name in libraries:
    with suppress(Exception):
        importlib.import_module(name)

import av, mmengine.fileio.backends.registry_utils as storage, mmengine.registry, numpy, PIL.Image, torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint, load_from_local


def snapshot():
    registries = {name: dict(registry.module_dict) for name, registry in vars(mmengine.registry).items()
                  if isinstance(registry, mmengine.registry.Registry)}
    loggers = {name: (logger.level, logger.handlers[:], logger.filters[:], logger.disabled, logger.propagate)
               for name, logger in {**logging.root.manager.loggerDict, 'root': logging.root}.items()
               if isinstance(logger, logging.Logger) and not name.startswith('vop_mm')}
    return dict(
        loaders=dict(CheckpointLoader._schemes), registries=registries, prefixes=dict(storage.prefix_to_backends),
        backends={name: kind for name, kind in storage.backends.items() if name != 'atomic'},  # ours, by its own name
        scope=mmengine.registry.DefaultScope.get_current_instance(),
        torch=[torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed(),
               torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
               torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled,
               torch.backends.cuda.matmul.allow_tf32, torch.multiprocessing.get_sharing_strategy(),
               torch.multiprocessing.get_start_method(allow_none=True)],
        start_method=multiprocessing.get_start_method(allow_none=True),
        hooks=[sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, *sys.meta_path, *sys.path],
        signals={number: signal.getsignal(number) for number in signal.valid_signals()},
        environment=dict(os.environ), filters=list(warnings.filters), loggers=loggers, folder=os.getcwd(),
        av=[av.logging.get_level(), getattr(av.video.frame, '_thread_local', None)],
        pillow=[PIL.Image.MAX_IMAGE_PIXELS, list(PIL.Image.OPEN), list(PIL.Image.SAVE)],
        numpy=[numpy.random.get_state()[1].tolist(), numpy.geterr(), numpy.get_printoptions()],
        others={name: getattr(sys.modules[module], name)() for module, name in (
            ('cv2', 'getNumThreads'), ('cv2', 'useOptimized'), ('matplotlib', 'get_backend')) if module in sys.modules})


before = snapshot()
import_everything()
assert 'vop_mm.engine.runner' in sys.modules and 'vop_mm.datasets.decoding.pyav_reader' in sys.modules
after = snapshot()
for key in before:
    assert after[key] == before[key], (key, before[key], after[key])
assert CheckpointLoader._schemes[''] is load_from_local

# a bare state dict, as other projects write it
model = torch.nn.Linear(2, 1)
torch.save(dict(weight=torch.ones(1, 2), bias=torch.zeros(1)), sys.argv[1])
load_checkpoint(model, sys.argv[1])
assert model.weight.tolist() == [[1, 1]]
'''


def test_importing_every_module_changes_nothing_for_others(tmp_path):
    done = subprocess.run([sys.executable, '-c', CODE, str(tmp_path / 'bare.pth')], capture_output=True, text=True,
                          cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
