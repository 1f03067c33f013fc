# DiDeMo, paragraphs: the sentences of a video joined; its first 30 seconds (start and end in the annotation)
_base_ = './msrvtt.py'
data_root = 'data/didemo/'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train.json'))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
