# The last block of both encoders trains
_base_ = './zero_shot.py'
method = 'Partial'
model = dict(tuning=dict(type='PartialTuning', num_blocks=1))
