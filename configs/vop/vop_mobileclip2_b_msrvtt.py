# VoP on MobileCLIP2-B: convolutional stem and CLS
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='MobileCLIP2-B', weights='dfndr2b'))
