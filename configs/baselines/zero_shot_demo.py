_base_ = ['../_base_/models/zero_shot.py', '../_base_/datasets/demo.py', '../_base_/schedules/no_training.py',
          '../_base_/default_runtime.py']

model = dict(backbone=_base_._mini_clip)
train_dataloader = val_dataloader = val_evaluator = None
