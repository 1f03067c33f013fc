# The two final projections train
_base_ = './zero_shot.py'
method = 'Proj'
model = dict(tuning=dict(type='ProjTuning'))
