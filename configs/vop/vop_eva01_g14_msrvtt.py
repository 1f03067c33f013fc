# VoP on EVA01-g/14: timm's Eva without rotary positions
_base_ = './vop_msrvtt.py'
model = dict(backbone=dict(arch='EVA01-g-14', weights='laion400m_s11b_b41k'))
