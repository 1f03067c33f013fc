# VoP^F on PE-Core-B/16: rotary positions, frames read by attention pooling over CLS and patches
_base_ = './vop_f_msrvtt.py'
model = dict(backbone=dict(arch='PE-Core-B-16', weights='meta'))
