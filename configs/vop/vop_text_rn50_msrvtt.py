# Text prompts of VoP on ResNet-50, which has no layers for visual prompts
_base_ = './vop_msrvtt.py'
method = 'text prompts only'
model = dict(backbone=dict(arch='RN50-quickgelu', weights='openai'), frame_prompts=[])
