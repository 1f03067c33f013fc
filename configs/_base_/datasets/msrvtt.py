# MSR-VTT: videos and annotations as tools/dataset_converters/msrvtt.py leaves them; 9k training split, dev split of
# training videos for model selection, 1k-A as test. Size of frames, cropping, interpolation and tokenizer are the
# backbone's.
data_root = 'data/msrvtt/'
num_frames = 12  # of a clip, for all splits and for the model

train_pipeline = [
    # the middle frame of each segment; mode='random' draws one of each
    dict(type='ReadClip', num_frames=num_frames, sampling='number'),
    dict(type='mmaction.RandomResizedCrop', area_range=(0.5, 1.0)),
    dict(type='ResizeFrames'),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='TokenizeText'),
    dict(type='PackVideoText')
]
test_pipeline = [
    dict(type='ReadClip', num_frames=num_frames, sampling='number'),
    dict(type='TokenizeText'),
    dict(type='PackVideoText')
]

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='VideoTextDataset',
        data_root=data_root,
        ann_file='train_9k.json',
        data_prefix=dict(video='videos'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='VideoTextDataset',
        data_root=data_root,
        ann_file='dev.json',
        data_prefix=dict(video='videos'),
        test_mode=True,
        on_unreadable='error',  # 'skip' leaves videos that can't be decoded out, and reports them
        pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='VideoTextDataset',
        data_root=data_root,
        ann_file='test.json',
        data_prefix=dict(video='videos'),
        test_mode=True,
        on_unreadable='error',
        pipeline=test_pipeline))

val_evaluator = dict(type='RetrievalMetric')
test_evaluator = dict(type='RetrievalMetric')
