# Sharded training on the demo and its mini CLIP, to be tried without a GPU, in two processes
_base_ = '../../../configs/baselines/full_demo.py'
custom_imports = dict(imports=['projects.fsdp.fsdp'], allow_failed_imports=False)  # as in fsdp_runtime.py
runner_type = 'FlexibleRetrievalRunner'
strategy = dict(type='RetrievalFSDPStrategy')
model = dict(recompute=True)
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
