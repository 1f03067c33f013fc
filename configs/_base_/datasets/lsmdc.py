# LSMDC: one sentence per clip; the 1,000 clips of the public test as test
_base_ = './msrvtt.py'
data_root = 'data/lsmdc/'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.json'))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
