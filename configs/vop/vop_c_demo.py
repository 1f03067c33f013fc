_base_ = ['../_base_/models/vop_c.py', '../_base_/demo.py']
model = dict(backbone=_base_._mini_clip)
optim_wrapper = dict(optimizer=dict(lr=2.5e-3))
