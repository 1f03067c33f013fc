# VoP on EVA02-B/16: rotary positions and CLS
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='EVA02-B-16', weights='merged2b_s8b_b131k'))
