# The paper's recipe: AdamW, weight decay 0.2, cosine decay, 5 epochs over all (video, caption) pairs, global batch 32
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='TrainableOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.2))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=5, eta_min=0, by_epoch=True, convert_to_iter_based=True)]

# the learning rate above is for this many pairs in a step, over all processes
auto_scale_lr = dict(enable=False, base_batch_size=32)
