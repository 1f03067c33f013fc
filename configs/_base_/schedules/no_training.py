# For configs that train nothing; tools/train.py evaluates them. Such a config also says
# train_dataloader = val_dataloader = val_evaluator = None
train_cfg = val_cfg = optim_wrapper = None
test_cfg = dict(type='TestLoop')
