_base_ = ['../../../configs/_base_/models/full.py', '../../../configs/_base_/datasets/msrvtt.py',
          '../../../configs/_base_/schedules/vop_5e.py', './fsdp_runtime.py']

model = dict(backbone=dict(arch='ViT-L-14-quickgelu', weights='openai'), recompute=True)
train_dataloader = dict(batch_size=4)  # in each of 8 processes: 32 pairs in a step
val_dataloader = dict(batch_size=8)
test_dataloader = dict(batch_size=8)
optim_wrapper = dict(type='AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(lr=1e-6))  # a guess, never tried
