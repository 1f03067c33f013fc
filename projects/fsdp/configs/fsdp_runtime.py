# As default_runtime.py, but with parameters, gradients and the optimizer's state sharded over all processes (FSDP)
_base_ = '../../../configs/_base_/default_runtime.py'
custom_imports = dict(imports=['projects.fsdp.fsdp'], allow_failed_imports=False)
runner_type = 'FlexibleRetrievalRunner'
strategy = dict(type='RetrievalFSDPStrategy')
