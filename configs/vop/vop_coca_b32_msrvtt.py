# VoP on the two towers of CoCa B/32: attention pooling, captions read at a token of their own
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='coca_ViT-B-32', weights='laion2b_s13b_b90k'))
