# MSVD: about 40 captions per video, all of them queries
_base_ = './msrvtt.py'
data_root = 'data/msvd/'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.json'))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
