# ActivityNet Captions, paragraphs: the sentences of a video joined; val1 as test
_base_ = './msrvtt.py'
data_root = 'data/activitynet/'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.json'))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
