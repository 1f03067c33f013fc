# VoP^P on SigLIP2-B/16: no CLS, attention pooling, text that is not causal, sigmoid loss
_base_ = './vop_p_msrvtt.py'
model = dict(backbone=dict(arch='ViT-B-16-SigLIP2', weights='webli'), loss=dict(type='SigmoidLoss'))
