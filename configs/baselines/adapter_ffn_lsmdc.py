_base_ = ['../_base_/models/adapter_ffn.py', '../_base_/datasets/lsmdc.py', '../_base_/schedules/vop_5e.py',
          '../_base_/default_runtime.py']

optim_wrapper = dict(optimizer=dict(lr=1e-4))
