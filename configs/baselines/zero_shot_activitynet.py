_base_ = ['../_base_/models/zero_shot.py', '../_base_/datasets/activitynet.py', '../_base_/schedules/no_training.py',
          '../_base_/default_runtime.py']

train_dataloader = val_dataloader = val_evaluator = None
