_base_ = ['../_base_/models/partial.py', '../_base_/demo.py']
model = dict(backbone=_base_._mini_clip)
optim_wrapper = dict(optimizer=dict(lr=8e-3))
