# VoP on MetaCLIP 2 (worldwide) H/14: captions in any language, read at a fixed id
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='ViT-H-14-worldwide', weights='metaclip2_worldwide'))
