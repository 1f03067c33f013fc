"""Registries of vop_mm, children of MMEngine's under the scope ``vop_mm``.

Each of MMEngine's root registries has a child here, so that a lookup in this scope never warns about a missing
registry; the registries of this project (prompts, tuning, readers ...) share the scope. ``locations`` name the modules
to import when a registry is first used, so that importing ``vop_mm`` itself stays cheap.
"""
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import INFERENCERS as MMENGINE_INFERENCERS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNER_CONSTRUCTORS as MMENGINE_RUNNER_CONSTRUCTORS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry, build_from_cfg

_SCOPE = 'vop_mm'


def _build_or_list(cfg: dict, registry: Registry, *args, **kwargs):
    """Build an object, or raise a ``KeyError`` that lists the available names."""
    name = cfg.get('type') if isinstance(cfg, dict) else None
    if isinstance(name, str) and registry.get(name) is None:
        raise KeyError(f'{name} is not in the {registry.name} registry: {", ".join(registry.module_dict)}')
    return build_from_cfg(cfg, registry, *args, **kwargs)


def _child(name: str, parent: Registry | None, *locations: str) -> Registry:
    return Registry(name, _build_or_list if parent is None else None, parent, scope=_SCOPE, locations=list(locations))


# data
DATASETS = _child('dataset', MMENGINE_DATASETS, 'vop_mm.datasets')
DATA_SAMPLERS = _child('data sampler', MMENGINE_DATA_SAMPLERS)
TRANSFORMS = _child('transform', MMENGINE_TRANSFORMS, 'vop_mm.datasets.transforms')
TOKENIZERS = _child('tokenizer', None, 'vop_mm.datasets.transforms')
READERS = _child('reader', None, 'vop_mm.datasets.decoding')

# models: CLIP backbones, losses, retrievers; heads; modules between CLIP's blocks; tuning strategies
MODELS = _child('model', MMENGINE_MODELS, 'vop_mm.models')
HEADS = _child('head', None, 'vop_mm.models')
PROMPTS = _child('prompt', None, 'vop_mm.models')
MIXERS = _child('mixer', None, 'vop_mm.models')
UPDATES = _child('update', None, 'vop_mm.models')
TUNING = _child('tuning', None, 'vop_mm.models')
MODEL_WRAPPERS = _child('model wrapper', MMENGINE_MODEL_WRAPPERS)
WEIGHT_INITIALIZERS = _child('weight initializer', MMENGINE_WEIGHT_INITIALIZERS)

# search: vector indexes
INDEXES = _child('index', None, 'vop_mm.search')

# training
OPTIMIZERS = _child('optimizer', MMENGINE_OPTIMIZERS)
OPTIM_WRAPPERS = _child('optimizer wrapper', MMENGINE_OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor', MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
                                    'vop_mm.engine')
PARAM_SCHEDULERS = _child('parameter scheduler', MMENGINE_PARAM_SCHEDULERS)
RUNNERS = _child('runner', MMENGINE_RUNNERS, 'vop_mm.engine')
RUNNER_CONSTRUCTORS = _child('runner constructor', MMENGINE_RUNNER_CONSTRUCTORS)
LOOPS = _child('loop', MMENGINE_LOOPS)
HOOKS = _child('hook', MMENGINE_HOOKS, 'vop_mm.engine')
LOG_PROCESSORS = _child('log processor', MMENGINE_LOG_PROCESSORS)
STRATEGIES = _child('strategy', MMENGINE_STRATEGIES, 'vop_mm.engine')

# evaluation, visualization, others
METRICS = _child('metric', MMENGINE_METRICS, 'vop_mm.evaluation')
EVALUATOR = _child('evaluator', MMENGINE_EVALUATOR)
VISUALIZERS = _child('visualizer', MMENGINE_VISUALIZERS)
VISBACKENDS = _child('vis_backend', MMENGINE_VISBACKENDS)
INFERENCERS = _child('inferencer', MMENGINE_INFERENCERS)
TASK_UTILS = _child('task util', MMENGINE_TASK_UTILS)
FUNCTIONS = _child('function', MMENGINE_FUNCTIONS)

# registry in which an argument's ``type`` is looked up; other arguments use the registry of their parent
BY_ARGUMENT = dict(
    backbone=MODELS, head=HEADS, loss=MODELS, data_preprocessor=MODELS, frame_prompts=PROMPTS, video_prompts=PROMPTS,
    text_prompts=PROMPTS, text_suffix_prompts=PROMPTS, mixer=MIXERS, cls_updates=UPDATES, tuning=TUNING,
    pipeline=TRANSFORMS, transforms=TRANSFORMS, tokenizer=TOKENIZERS)
