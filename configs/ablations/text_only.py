# Prompts in the text encoder alone
_base_ = ['../vop/vop_msrvtt.py']
method = 'text prompts only'
model = dict(frame_prompts=[])
