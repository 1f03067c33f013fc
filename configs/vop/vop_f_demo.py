_base_ = ['../_base_/models/vop_f.py', '../_base_/demo.py']
# the mini CLIP has 4 layers: K_s = 2
model = dict(backbone=_base_._mini_clip, video_from=2)
optim_wrapper = dict(optimizer=dict(lr=4e-2))
