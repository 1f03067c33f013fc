# Visual prompts of VoP with the text tower RoBERTa, which has no layers for text prompts
_base_ = './vop_msrvtt.py'
method = 'visual prompts only'
model = dict(backbone=dict(arch='roberta-ViT-B-32', weights='laion2b_s12b_b32k'), text_prompts=[])
