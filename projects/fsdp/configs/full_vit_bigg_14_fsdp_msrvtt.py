_base_ = './full_vit_l_14_fsdp_msrvtt.py'

model = dict(backbone=dict(arch='ViT-bigG-14', weights='laion2b_s39b_b160k'))
