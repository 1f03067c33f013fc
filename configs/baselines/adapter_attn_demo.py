_base_ = ['../_base_/models/adapter_attn.py', '../_base_/demo.py']
model = dict(backbone=_base_._mini_clip)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
