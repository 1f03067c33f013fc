# VoP on ViTamin-B: convolutional stem, frames are the mean of their patches
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='ViTamin-B', weights='datacomp1b'))
