"""The table of backbones: methods are built and run; one line for a name that open_clip doesn't have."""
from tests.tools import run_tool

TOOL = 'tools/analysis_tools/list_backbones.py'


def test_what_works_on_a_tower_with_blocks_and_on_a_whole_one():
    done = run_tool(TOOL, 'RN50', 'ViT-S-32-alt')
    assert done.returncode == 0, done.stderr
    head, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in done.stdout.splitlines()]
    found = {row['examples']: row for row in (dict(zip(head, row, strict=True)) for row in rows)}
    assert found['ViT-S-32-alt']['vision tower'] == 'ViT, CLS'
    assert {found['ViT-S-32-alt'][title] for title in head[4:]} == {'yes'}
    assert {title for title in head[4:] if found['RN50'][title] == 'no'} == {
        'visual prompts', 'VoP, ^P, ^C, ^F', 'Adapter, Partial'}


def test_every_architecture_in_a_row_and_an_unknown_one_in_a_line():
    done = run_tool(TOOL, '--all', 'RN50', 'ViT-B-32')
    assert [line.split('|')[1].strip() for line in done.stdout.splitlines()[2:]] == ['RN50', 'ViT-B-32']
    done = run_tool(TOOL, 'ViT-B-33')
    line, hint = done.stderr.strip().splitlines()
    assert done.returncode == 1 and line.startswith('error: ') and 'near it are: ViT-B-32' in line
    assert 'TRACEBACK' in hint and not done.stdout
