# Full fine-tuning: everything trains
_base_ = './zero_shot.py'
method = 'Full'
model = dict(tuning=dict(type='FullTuning'))
