# VoP on CLIPA L/14: frames are the mean of their patches, text is not causal and 32 tokens long
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='ViT-L-14-CLIPA', weights='datacomp1b'))
