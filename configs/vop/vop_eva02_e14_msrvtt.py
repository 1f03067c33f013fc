# VoP on EVA02-E/14: post-norm blocks
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='EVA02-E-14', weights='laion2b_s4b_b115k'))
