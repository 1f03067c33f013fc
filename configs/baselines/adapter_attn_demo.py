_base_ = ['../_base_/models/adapter_attn.py', '../_base_/datasets/demo.py', '../_base_/schedules/demo.py',
          '../_base_/default_runtime.py']

model = dict(backbone=dict(arch='MiniCLIP', weights='demo/mini_clip/mini_clip.safetensors'))
optim_wrapper = dict(optimizer=dict(lr=1e-2))
