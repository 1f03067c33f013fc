"""Configs as they come with data, changed: types of other packages, scopes, numbers, nesting, text."""
import os
import random

from .mutate import WEIRD, Raw, deep, dump_config, mutate_bytes, places, read_config
from .watch import LOADED, MODULE

_SCOPES = ('mmengine', 'mmaction', 'mmcv', 'vop_mm', 'mmdet', 'mmpretrain', MODULE, 'os', 'torch', '', '.', '..')
_TYPES = ('ReadClip', 'PyAVReader', 'mmaction.DecordDecode', 'TextVideoRetriever', 'VideoTextDataset', 'Adam',
          'FaissIndex', 'Runner', 'TrainLoop', 'CheckpointHook', 'LoadImageFromFile', 'PyAVInit', 'OpenCVInit',
          'Compose', 'mmaction.Resize', 'mmcv.TransformBroadcaster', 'mmaction.OpenCVInit',
          'mmaction.AudioFeatureSelector',
          'OpenCLIP', 'MilvusIndex', 'DecordReader', 'CLIPTokenizer')
_CODE = (  # statements that a config doesn't have
    "x = __import__('os').system('touch {ran}')", "x = [open('{ran}', 'w') for _ in (1, )]",
    "import os\nos.system('touch {ran}')", 'x = (lambda: 1)()', 'x: int = 1', 'x += 1', 'a = b = 1', 'a, b = 1, 2',
    'del model', 'def f():\n    pass', "x = f'{{open}}'", "x = dict(**{{'type': 'os.system'}})", 'x = dict(1)',
    'x = model', 'x = dict.fromkeys([1])', 'model.type = 1', "model['type'] = 1", "_base_ = ['{evil}']",
    'x = {{[]: 1}}', 'x = {{**1}}', 'x = [*1]', "x = 'a' 'b' % 1", 'pass', 'x = (yield)', 'x = 1 if 1 else 2')
_LONG = ('x = ' + repr('a' * 3_000_000), '\n' * 1_000_000, '#' * 1_000_000, 'x = 1\n' * 50_000,
         f'x = [{"1, " * 300_000}]', 'x = 0x' + 'f' * 1_000_000, 'x' * 500_000 + ' = 1', '\0', '\udcff')


def foreign_parts(world, folder) -> list[dict]:
    """Configs of parts that no data may name; what they do is harmless, and seen."""
    canary, port = world.canary, world.canaries.port
    ran = str(canary / 'ran')
    return [
        dict(type='os.system', command=f'touch {ran}'),
        dict(type='subprocess.Popen', args=['touch', ran]),
        dict(type='subprocess.run', args=['touch', ran]),
        dict(type='subprocess.check_output', args=['touch', ran]),
        dict(type='builtins.open', file=ran, mode='w'),
        dict(type='os.mkdir', path=str(canary / 'made')),
        dict(type='os.remove', path=str(canary / 'nothing')),
        dict(type='shutil.copyfile', src=str(canary / 'victim.txt'), dst=str(canary / 'copy')),
        dict(type='runpy.run_path', path_name=str(canary / 'evil.py')),
        dict(type='importlib.import_module', name=MODULE),
        dict(type='torch.hub.load', repo_or_dir=str(folder), model='entry', source='local'),
        dict(type='torch.load', f=str(canary / 'victim.txt'), weights_only=False),
        dict(type='numpy.load', file=str(canary / 'victim.txt'), allow_pickle=True),
        dict(type='numpy.savetxt', fname=str(canary / 'made'), X=[1]),
        dict(type='urllib.request.urlopen', url=f'http://127.0.0.1:{port}/'),
        dict(type='socket.create_connection', address=['127.0.0.1', port]),
        dict(type='mmengine.config.Config.fromfile', filename=str(canary / 'evil.py')),
        dict(type='mmengine.Config.fromfile', filename=str(canary / 'evil.py')),
        dict(type='mmengine.fileio.get', filepath=str(canary / 'victim.txt')),
        dict(type='mmengine.dump', obj=[1], file=str(canary / 'made.json')),
        dict(type='vop_mm.apis.init_model', config=str(canary / 'evil.py')),
        dict(type='vop_mm.utils.files.atomic_write', path=str(canary / 'made')),
        dict(type='this.Thing'),
        dict(type=f'{MODULE}.Thing'),
        dict(type=f'{LOADED}.Thing'),
        dict(type=f'{LOADED}.Thing', command='x', path='y'),
        dict(type=f'mmengine.{LOADED}.Thing'),
        dict(type=f'vop_mm.{LOADED}.Thing'),
    ]


def mutate_config(rng: random.Random, text: str, world, folder) -> tuple[str, str]:
    """A changed config, as text, and what was done.

    Args:
        rng (random.Random): Draws.
        text (str): A good config.
        world (World): Where canaries are.
        folder (Path): The input's own folder; gets what some of the changes need.
    """
    values = read_config(text)
    (folder / 'hubconf.py').write_text(f'open({str(world.canary / "ran")!r}, "w").close()\n\n'
                                       'def entry(**kwargs):\n    raise ValueError("nothing to see")\n')
    kind = rng.choice(('foreign', 'foreign', 'foreign', 'foreign', 'step', 'step', 'scope', 'type', 'weird', 'weird',
                       'weird', 'deep', 'number', 'remove', 'extra', 'text', 'code', 'long'))
    relevant = {name: values[name] for name in ('model', 'test_dataloader', 'method') if name in values}
    found = places(relevant)
    typed = [(container, key, path) for container, key, path in found
             if isinstance(container[key], dict) and 'type' in container[key]]
    container, key, path = rng.choice(typed if kind in ('foreign', 'scope', 'type') else found)
    where = '/'.join(map(str, path))
    if kind == 'foreign':
        part = rng.choice(foreign_parts(world, folder))
        if rng.random() < .3:  # its name alone
            part = dict(container[key], type=part['type'])
        container[key] = part
        kind += f' {part["type"]}'
    elif kind == 'step':
        part = rng.choice(foreign_parts(world, folder))
        pipeline = values['test_dataloader']['dataset']['pipeline']
        lists = [pipeline, *(step['transforms'] for step in pipeline if 'transforms' in step)]
        steps = rng.choice(lists)
        steps.insert(rng.randrange(len(steps) + 1), part)
        kind, where = f'step {part["type"]}', 'pipeline'
    elif kind == 'scope':
        container[key]['type'] = f'{rng.choice(_SCOPES)}.{container[key]["type"]}'
        if rng.random() < .3:
            container[key]['_scope_'] = rng.choice(_SCOPES)
        kind += f' {container[key]["type"]}'
    elif kind == 'type':
        container[key]['type'] = rng.choice((*_TYPES, *WEIRD))
        kind += f' {container[key]["type"]!r:.40}'
    elif kind == 'weird':
        container[key] = rng.choice((*WEIRD, f'http://127.0.0.1:{world.canaries.port}/x', str(folder / 'fifo'),
                                     Raw('b"x"'), Raw('...'), Raw('{1, 2}'), Raw('1j'), Raw('{1: 2}'), Raw('(1, )')))
        kind += f' {container[key]!r:.30}'
        _make_fifo(folder)
    elif kind == 'deep':
        container[key] = Raw(rng.choice((
            lambda: deep(rng, '[', ']'), lambda: deep(rng, 'dict(a=', ')', '0'), lambda: deep(rng, '(', ')', '0'),
            lambda: '-' * 200_000 + '1', lambda: '1' + ' + 1' * 50_000, lambda: deep(rng, '{1: ', '}', '0')))())
    elif kind == 'number':
        numbers = [place for place in found if type(place[0][place[1]]) in (int, float)]
        container, key, path = rng.choice(numbers or found)
        container[key] = rng.choice((0, -1, 10**6, 10**9, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**400, 1e308, 1e-308,
                                     float('inf'), float('nan'), True, 7, 0.5))
        where = '/'.join(map(str, path))
        kind += f' {container[key]!r:.20}'
    elif kind == 'remove':
        del container[key]
    elif kind == 'extra':
        new, value = rng.choice((
            ('custom_imports', dict(imports=[MODULE], allow_failed_imports=False)), ('default_scope', MODULE),
            ('_base_', str(world.canary / 'evil.py')), ('filename', 1), ('text', 1), ('env_variables', {}),
            ('_delete_', True), ('__class__', 'x'), ('load_from', f'http://127.0.0.1:{world.canaries.port}/x'),
            ('resume', True), ('launcher', 'pytorch'), ('_wrap_', dict(type='os.system')), ('pop', 1), ('get', 1),
            ('items', 2), ('merge_from_dict', 3), ('model_wrapper_cfg', dict(type=f'{LOADED}.Thing'))))
        if rng.random() < .5 and isinstance(container[key], dict):
            container[key][new] = value
        else:
            values, where = {new: value, **values}, 'top'
            relevant = {}
        kind += f' {new}'
    values.update(relevant)
    if kind == 'code':
        line = rng.choice(_CODE)
        line = line.format(ran=world.canary / 'ran', evil=world.canary / 'evil.py')
        first = rng.random() < .5
        return (f'{line}\n{dump_config(values)}' if first else f'{dump_config(values)}{line}\n'), f'code {line!r:.60}'
    text = dump_config(values)
    if kind == 'text':
        content, what = mutate_bytes(rng, text.encode(), head=len(text))
        return content.decode('utf-8', 'surrogateescape'), f'text, {what}'
    if kind == 'long':
        text += rng.choice(_LONG)
        return text, 'long'
    return text, f'{kind} at {where}'


def _make_fifo(folder) -> None:
    if not (folder / 'fifo').exists():
        os.mkfifo(folder / 'fifo')
