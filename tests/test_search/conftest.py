"""Checkpoints that the tests of search share."""
import pytest

from tests.checkpoints import demo_config, write_checkpoint


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Configs and checkpoints of three methods that leave CLIP alone, and of three that don't."""
    folder = tmp_path_factory.mktemp('checkpoints')
    names = dict(vop='vop/vop_demo.py', f_p='vop/vop_f_p_demo.py', c='vop/vop_c_demo.py',
                 full='baselines/full_demo.py', partial='baselines/partial_demo.py',
                 adapter='baselines/adapter_attn_demo.py')
    made = {}
    for seed, (name, config) in enumerate(names.items()):
        cfg = demo_config(config)
        made[name] = cfg, write_checkpoint(folder / f'{name}.pth', cfg, seed)
    return made
