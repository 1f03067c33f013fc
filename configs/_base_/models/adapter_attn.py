# A bottleneck of 64 channels in parallel to the attention of every block
_base_ = './zero_shot.py'
method = 'Adapter^ATTN'
model = dict(tuning=dict(type='AdapterTuning', beside='attn', hidden=64))
