_base_ = ['../_base_/models/vop_f_p.py', '../_base_/datasets/demo.py', '../_base_/schedules/demo.py',
          '../_base_/default_runtime.py']

# the mini CLIP has 4 layers: K_s = 2
model = dict(backbone=dict(arch='MiniCLIP', weights='demo/mini_clip/mini_clip.safetensors'), video_from=2)
optim_wrapper = dict(optimizer=dict(lr=1e-2))
