_base_ = ['../_base_/models/vop_f_p.py', '../_base_/datasets/activitynet.py', '../_base_/schedules/vop_5e.py',
          '../_base_/default_runtime.py']
