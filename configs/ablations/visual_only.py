# Prompts in the vision encoder alone
_base_ = ['../vop/vop_msrvtt.py']
method = 'visual prompts only'
model = dict(text_prompts=[])
