# MSR-VTT with the 7k training split: 7,010 videos; the same dev and 1k-A test split
_base_ = './msrvtt.py'
data_root = 'data/msrvtt/'
train_dataloader = dict(dataset=dict(data_root=data_root, ann_file='train_7k.json'))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
