# Sharded training on the demo and its mini CLIP, to be tried without a GPU, in two processes
_base_ = ['../../../configs/_base_/models/full.py', '../../../configs/_base_/datasets/demo.py',
          '../../../configs/_base_/schedules/demo.py', './fsdp_runtime.py']

model = dict(backbone=_base_._mini_clip, recompute=True)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
