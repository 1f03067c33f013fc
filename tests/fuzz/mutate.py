"""Changes of bytes, JSON values and configs that any kind of input can use. All draw from the generator given."""
import ast
import json
import random

HUGE = 10**400
WEIRD = (None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -2**63 - 1, 10**12, HUGE, -HUGE, 0.0, -0.5, 1e308, -1e308,
         float('inf'), float('-inf'), float('nan'), '', 'x', '\0', '\udcff', '../../../../etc/passwd', '/etc/passwd',
         'a' * 5000, '\x1b[2J\r\n', "'; DROP TABLE clips; --", '{{fileDirname}}', [], [[]], {}, {'': {}},
         [0] * 1000, {'type': 'x'}, ['..'] * 50)


def mutate_bytes(rng: random.Random, content: bytes, head: int = 600) -> tuple[bytes, str]:
    """Flip, cut, zero, move, repeat, insert or overwrite something; what was done, in words."""
    data, size = bytearray(content), len(content)
    kind = rng.choice(('flip', 'flip', 'flip', 'flip in the head', 'cut', 'cut', 'zero', 'swap', 'tail', 'insert',
                       'remove', 'number', 'number', 'number in the head', 'repeat', 'noise', 'empty or tiny'))
    end = min(head, size) if 'head' in kind else size
    if kind.startswith('flip'):
        for _ in range(rng.choice((1, 1, 3, 10, 40))):
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == 'cut':
        data = data[:rng.randrange(1, size)]
    elif kind == 'zero':
        place, length = rng.randrange(size), rng.choice((4, 16, 64, 512, 4096))
        data[place:place + length] = bytes(len(data[place:place + length]))
    elif kind == 'swap':
        length = rng.choice((4, 64, 512))
        a, b = rng.randrange(size), rng.randrange(size)
        data[a:a + length], data[b:b + length] = data[b:b + length], data[a:a + length]
    elif kind == 'tail':
        data += rng.randbytes(rng.choice((1, 100, 5000)))
    elif kind == 'insert':
        place = rng.randrange(size)
        data[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
    elif kind == 'remove':
        place = rng.randrange(size)
        del data[place:place + rng.choice((1, 4, 100))]
    elif kind.startswith('number'):
        width, order = rng.choice((1, 2, 4, 8)), rng.choice(('little', 'big'))
        value = rng.choice((0, 1, 2, 127, 2**(8 * width - 1) - 1, 2**(8 * width - 1), 2**(8 * width) - 1,
                            rng.randrange(2**(8 * width)))) % 2**(8 * width)
        place = rng.randrange(max(end - width, 1))
        data[place:place + width] = value.to_bytes(width, order)
    elif kind == 'repeat':
        place, length = rng.randrange(size), rng.choice((8, 100, 1000))
        data[place:place] = data[place:place + length] * rng.choice((1, 2, 50))
    elif kind == 'noise':
        data = bytearray(rng.randbytes(rng.choice((10, 1000, size))))
    else:
        data = bytearray(rng.choice((b'', b'\0', content[:4], content[:16], b'{}', b'PK\x03\x04')))
    return bytes(data), kind


def places(value, path: tuple = ()) -> list[tuple]:
    """Where values stand in dicts and lists: (container, key, path), the outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in list(items):
        found.append((value, key, (*path, key)))
        found.extend(places(item, (*path, key)))
    return found


def mutate_json(rng: random.Random, value) -> tuple[str, str]:
    """A changed copy of a value, as the text of a JSON file (which may be none), and what was done."""
    value = json.loads(json.dumps(value))
    found = places(value)
    kind = rng.choice(('weird', 'weird', 'weird', 'weird', 'remove', 'repeat', 'rename', 'deep', 'huge', 'text', 'text',
                       'top', 'swap', 'key twice', 'literal'))
    container, key, path = rng.choice(found)
    where = '/'.join(map(str, path))
    text = None
    if kind == 'weird':
        container[key] = rng.choice(WEIRD)
        kind += f' {container[key]!r:.30}'
    elif kind == 'remove':
        del container[key]
    elif kind == 'repeat':
        if isinstance(container, list):
            container.extend([container[key]] * rng.choice((1, 3, 500)))
        else:
            container[f'{key}x'] = container[key]
    elif kind == 'rename' and isinstance(container, dict):
        new = rng.choice(('', 'filename', 'video_index', 'imgs', 'img_shape', 'sample_idx', 'start', '__class__',
                          'type', '\0', '\udcff', 'total_frames', 'modality', 'video_reader', 'tokens', key.upper()))
        container[new] = container.pop(key)
        kind += f' {new!r}'
    elif kind == 'swap':
        other, other_key, _ = rng.choice(found)
        container[key], other[other_key] = other[other_key], json.loads(json.dumps(container[key]))
    elif kind == 'top':
        value = rng.choice(WEIRD)
    elif kind in ('deep', 'literal', 'huge'):
        container[key] = '@@'
        raw = {'deep': lambda: deep(rng, '[', ']') if rng.random() < .7 else deep(rng, '{"a":', '}', '0'),
               'literal': lambda: rng.choice(('NaN', 'Infinity', '-Infinity', '1e999', '1E400', '-0', '0x10', "'a'",
                                              '"\\ud800"', '"\\u0000"', '01', '.5', 'nul', '\ufeff1', '"\t"')),
               'huge': lambda: rng.choice(('9' * 400, '9' * 5000, '-' + '9' * 400, '1' + '0' * 30, '0.' + '1' * 9000))
               }[kind]()
        text = json.dumps(value).replace('"@@"', raw, 1)
    if text is None:
        text = json.dumps(value)
    if kind == 'text':
        content, what = mutate_bytes(rng, text.encode())
        return content.decode('utf-8', 'surrogateescape'), f'text, {what}'
    if kind == 'key twice':
        text = text.replace('{', '{"video_id": 1, "video_id": 2, ', rng.choice((1, 2)))
    return text, f'{kind} at {where}'


def deep(rng: random.Random, begin: str, end: str, middle: str = '') -> str:
    """Brackets in brackets."""
    depth = rng.choice((50, 500, 2000, 20_000, 200_000))
    return begin * depth + middle + end * depth


class Raw(str):
    """Source text, in a value of a config."""


def dump_config(values: dict) -> str:
    """The text of a config, as MMEngine writes it."""
    return ''.join(f'{name} = {source(value)}\n' for name, value in values.items())


def source(value) -> str:
    """A value as Python's source, which reads back as it is where there is such."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        if value and all(isinstance(key, str) and key.isidentifier() for key in value):
            return f'dict({", ".join(f"{key}={source(item)}" for key, item in value.items())})'
        return f'{{{", ".join(f"{source(key)}: {source(item)}" for key, item in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(source, value))}]'
    if isinstance(value, tuple):
        return f'({"".join(f"{source(item)}, " for item in value)})'
    if isinstance(value, int) and abs(value) > 2**70:
        return hex(value)
    if isinstance(value, float) and (value != value or value in (float('inf'), float('-inf'))):
        return {'inf': '1e999', '-inf': '-1e999'}.get(str(value), '1e999 - 1e999')
    return ascii(value)


def read_config(text: str) -> dict:
    """The values of a good config, as MMEngine writes it."""

    def value(node: ast.expr):
        if isinstance(node, ast.Call):  # dict(...)
            return {keyword.arg: value(keyword.value) for keyword in node.keywords}
        if isinstance(node, (ast.List, ast.Tuple)):
            return (list if isinstance(node, ast.List) else tuple)(map(value, node.elts))
        if isinstance(node, ast.Dict):
            return {value(key): value(item) for key, item in zip(node.keys, node.values)}
        return ast.literal_eval(node)

    return {statement.targets[0].id: value(statement.value) for statement in ast.parse(text).body}
