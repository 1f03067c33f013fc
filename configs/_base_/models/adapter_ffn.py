# A bottleneck of 64 channels in parallel to the MLP of every block
_base_ = './zero_shot.py'
method = 'Adapter^FFN'
model = dict(tuning=dict(type='AdapterTuning', beside='mlp', hidden=64))
