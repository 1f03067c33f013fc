# 16 tokens in every layer of both encoders; 8 are configs/vop/vop_msrvtt.py
_base_ = ['../vop/vop_msrvtt.py']
method = 'VoP, 16 tokens'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=16)],
             text_prompts=[dict(type='GenericPrompt', num_tokens=16)])
