_base_ = ['../_base_/models/adapter_ffn.py', '../_base_/demo.py']
model = dict(backbone=_base_._mini_clip)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
