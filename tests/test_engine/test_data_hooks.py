import logging
from types import SimpleNamespace

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from torch.utils.data import Subset

from vop_mm.datasets import TooManyUnreadableVideosError
from vop_mm.engine.hooks import SetEpochHook, UnreadableVideoHook
from vop_mm.registry import HOOKS
from vop_mm.structures import VideoTextDataSample


class Recorder(BaseDataset):

    def load_data_list(self):
        self.calls = []
        return [dict(a=1)]

    def set_epoch(self, epoch, seed):
        self.calls.append((epoch, seed))


def runner_of(dataset=None, epoch: int = 0) -> SimpleNamespace:
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), epoch=epoch, seed=11,
                           logger=logging.getLogger('hooks'))


def batch(*unreadable: list) -> dict:
    samples = [VideoTextDataSample(metainfo=dict(video_id='v', unreadable=u)) for u in unreadable]
    return dict(inputs=[None] * len(samples), data_samples=samples)


A, B = ('a.mp4', 'no video stream'), ('b.mp4', 'the file is empty')


@pytest.mark.parametrize('wrap', [lambda d: d, lambda d: ConcatDataset([d, Recorder()]), lambda d: RepeatDataset(d, 2),
                                  lambda d: Subset(RepeatDataset(d, 2), [0])])
def test_every_data_set_learns_epoch_and_seed(wrap):
    data = Recorder()
    HOOKS.build(dict(type='vop_mm.SetEpochHook')).before_train_epoch(runner_of(wrap(data), epoch=4))
    assert data.calls == [(4, 11)]


def test_data_sets_without_epochs_are_left_alone():
    SetEpochHook().before_train_epoch(runner_of([1, 2, 3]))


def test_each_path_is_logged_once_and_the_epoch_summed_up(caplog):
    hook, runner = UnreadableVideoHook(max_share=0.5), runner_of(epoch=2)
    for _ in range(2):
        hook.before_train_epoch(runner)
        hook.before_train_iter(runner, 0, batch([], [A, B], []))
        hook.before_train_iter(runner, 1, batch([A], [], []))
        hook.after_train_epoch(runner)
    lines = [record.getMessage() for record in caplog.records]
    summary = "2 of 6 training samples of epoch 3 were replaced by others; 2 videos can't be decoded so far"
    assert lines == ["can't decode a.mp4: no video stream", "can't decode b.mp4: the file is empty", summary, summary]


def test_nothing_unreadable_nothing_said(caplog):
    hook, runner = UnreadableVideoHook(max_share=0), runner_of()
    hook.before_train_epoch(runner)
    hook.before_train_iter(runner, 0, batch([], []))
    hook.after_train_epoch(runner)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, batch([], []))
    hook.after_val_epoch(runner)
    assert not caplog.records


def test_training_stops_above_the_share_after_enough_samples():
    hook, runner = UnreadableVideoHook(max_share=0.1, min_samples=40), runner_of()
    hook.before_train_epoch(runner)
    for i in range(3):  # 3 of 30: too few samples to tell
        hook.before_train_iter(runner, i, batch([A, B], *[[]] * 9))
    hook.before_train_iter(runner, 3, batch([B], *[[]] * 9))  # 4 of 40 is not more than a tenth
    with pytest.raises(TooManyUnreadableVideosError) as error:
        hook.before_train_iter(runner, 4, batch([A], [A], *[[]] * 8))
    assert '6 of 50' in str(error.value) and '12.0%' in str(error.value) and 'a.mp4, b.mp4' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_small_data_set_is_judged_at_the_end_of_its_epoch():
    hook, runner = UnreadableVideoHook(max_share=0.01), runner_of()
    hook.before_train_epoch(runner)
    hook.before_train_iter(runner, 0, batch([A], *[[]] * 9))
    with pytest.raises(TooManyUnreadableVideosError, match='1 of 10'):
        hook.after_train_epoch(runner)
    hook.before_train_epoch(runner)  # every epoch counts anew
    hook.before_train_iter(runner, 0, batch(*[[]] * 10))
    hook.after_train_epoch(runner)


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_evaluation_reports_what_was_left_out(caplog, phase):
    hook, runner = UnreadableVideoHook(), runner_of()
    getattr(hook, f'before_{phase}_epoch')(runner)
    getattr(hook, f'after_{phase}_iter')(runner, 0, batch([B], [], []))
    getattr(hook, f'after_{phase}_iter')(runner, 1, batch([A], [B]))  # the sampler may repeat a sample
    getattr(hook, f'after_{phase}_epoch')(runner)
    said = caplog.records[-1].getMessage()
    assert said == "2 videos were left out of the evaluation because they can't be decoded: a.mp4, b.mp4"
    getattr(hook, f'before_{phase}_epoch')(runner)
    getattr(hook, f'after_{phase}_epoch')(runner)
    assert len(caplog.records) == 3


@pytest.mark.parametrize('share', [-0.1, 1.5])
def test_wrong_share(share):
    with pytest.raises(ValueError, match='max_share'):
        UnreadableVideoHook(max_share=share)
