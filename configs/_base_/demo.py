# Data, schedule and runtime of the demo
_base_ = ['./datasets/demo.py', './schedules/demo.py', './default_runtime.py']
