# The demo: clips of moving shapes that tools/data/make_demo.py renders, and the CLIP that knows what they are called
custom_imports = dict(imports=['demo.shapes.mini_clip', 'demo.shapes.pair_accuracy'], allow_failed_imports=False)
_mini_clip = dict(arch='MiniCLIP', weights='demo/mini_clip/mini_clip.safetensors')
data_root = 'data/demo/'
num_frames = 12  # of a clip, for all splits and for the model
tokenizer = dict(type='WordTokenizer', vocab='demo/mini_clip/vocab.txt', context_length=32)

# No crop and no flip: captions speak of left and right, and of where things are.
pipeline = [
    dict(type='ReadClip', num_frames=num_frames, sampling='number', size=(40, 40)),
    dict(type='TokenizeText', tokenizer=tokenizer),
    dict(type='PackVideoText', meta_keys=('start', 'end', 'kind', 'twin'))
]

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='VideoTextDataset',
        data_root=data_root,
        ann_file='train.json',
        data_prefix=dict(video='videos'),
        pipeline=pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='VideoTextDataset',
        data_root=data_root,
        ann_file='dev.json',
        data_prefix=dict(video='videos'),
        test_mode=True,
        pipeline=pipeline))
test_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='VideoTextDataset',
        data_root=data_root,
        ann_file='test.json',
        data_prefix=dict(video='videos'),
        test_mode=True,
        pipeline=pipeline))

val_evaluator = [dict(type='RetrievalMetric'), dict(type='PairAccuracy')]
test_evaluator = [dict(type='RetrievalMetric'), dict(type='PairAccuracy')]
