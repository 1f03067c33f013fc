# Every bias term of CLIP trains
_base_ = './zero_shot.py'
method = 'Bias'
model = dict(tuning=dict(type='BiasTuning'))
