# As default_runtime.py, but with parameters, gradients and the optimizer's state sharded over all processes (FSDP)
_base_ = './default_runtime.py'
runner_type = 'FlexibleRetrievalRunner'
strategy = dict(type='RetrievalFSDPStrategy')
